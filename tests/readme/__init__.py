"""The README, typed in as a user types it."""
