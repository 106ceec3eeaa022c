"""Writing what a run does, as it does it."""
