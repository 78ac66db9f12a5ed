"""What knows nothing of models, data or tasks: errors, files, locks, names, progress."""
