"""How runs get done and kept: the reference loop, engines, fingerprints, the store."""
