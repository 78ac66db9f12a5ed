"""A study's results beside the committed ones, cell by cell."""
