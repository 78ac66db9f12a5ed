"""DETRIS: its configuration and its forward."""
