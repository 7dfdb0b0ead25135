"""The documentation, typed in as a reader types it."""
