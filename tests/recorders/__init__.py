"""What test tools record, replace and forbid."""
