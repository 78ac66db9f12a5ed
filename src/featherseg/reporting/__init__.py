"""Everything that a notebook calls: results collected, tables, figures, the papers' numbers, and evidence."""

import warnings

# tqdm says this in every notebook of an environment without ipywidgets, which nothing here needs
warnings.filterwarnings("ignore", message="IProgress not found")
