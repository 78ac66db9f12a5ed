"""BiomedCLIPSeg: its configuration and its forward."""
