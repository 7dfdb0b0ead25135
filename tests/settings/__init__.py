"""Settings from the environment and by hand."""
