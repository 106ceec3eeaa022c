"""Execution and storage of runs: the reference loop, engines, fingerprints, the store."""
