"""Evidence: real problems, schedulers side by side, and what came of it."""
