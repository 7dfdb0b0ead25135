"""What a run records, and which run is the current one."""
