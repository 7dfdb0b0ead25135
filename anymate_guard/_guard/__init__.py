"""A run around a block or a function."""
