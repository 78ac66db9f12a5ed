"""CLIPSeg's decoder on DINOv2 and MiniLM: its configuration and its forward."""
