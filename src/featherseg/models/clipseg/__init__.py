"""CLIPSeg: its configuration and its forward."""
