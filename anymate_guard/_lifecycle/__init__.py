"""The life of a run, from entering to leaving and settling."""
