"""The overview of a study, whatever its papers: what ran, how well, on which structures, and whether prompts matter."""
