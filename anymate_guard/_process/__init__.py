"""What the operating system does to a process: signals and forks."""
