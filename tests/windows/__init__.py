"""What only Windows has: TerminateProcess, consoles, code pages, cmd."""
