"""Segmentation by a prompt: losses, metrics, training and scoring."""
