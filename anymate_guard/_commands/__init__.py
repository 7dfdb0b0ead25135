"""What each command of `anymate-guard` does; the command line imports the one that it runs."""
