"""Real data that needs no network: one file a source. What a package ships is read from it."""
