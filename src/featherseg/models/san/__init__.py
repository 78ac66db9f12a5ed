"""SAN: its configuration and its forward."""
