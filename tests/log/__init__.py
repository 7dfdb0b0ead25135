"""The log lines, in programs that log in different ways."""
