"""VLSM-Adapter (MICCAI 2024, arXiv 2405.06196)."""
