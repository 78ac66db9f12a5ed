"""Encoders and tokenizers that several models share."""
