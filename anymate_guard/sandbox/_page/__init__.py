"""The page at /: what Anymate would show of a bot."""
