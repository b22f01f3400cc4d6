"""Models that `genie bench` measures, each with its spec; loaded by path, as a user's are."""
