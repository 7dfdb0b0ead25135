"""What is open and what is owed, on disk."""
