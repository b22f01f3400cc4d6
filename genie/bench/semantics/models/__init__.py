"""Models of `genie bench semantics`, each with a spec for one device and one for two."""
