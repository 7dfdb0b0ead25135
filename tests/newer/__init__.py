"""What Python 3.14 and 3.15 changed: signals beside locks, sub-interpreters, the context of threads."""
