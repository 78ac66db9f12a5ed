"""ETRIS: its configuration and its forward."""
