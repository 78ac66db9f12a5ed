"""CRIS: its configuration and its forward."""
