"""The page as the server gives it."""
