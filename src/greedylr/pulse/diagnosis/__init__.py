"""Diagnosis of a recorded run."""
