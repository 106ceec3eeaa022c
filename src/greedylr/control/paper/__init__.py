"""The published algorithm."""
