"""Words for a target: made from its mask, or read."""
