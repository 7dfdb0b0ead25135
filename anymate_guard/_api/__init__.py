"""The calls of Anymate's API."""
