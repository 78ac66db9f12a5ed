"""What reproduces a paper's tables and figures, a folder each."""
