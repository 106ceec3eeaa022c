"""Transformers' own classes at a small size, by configuration: one file a family."""
