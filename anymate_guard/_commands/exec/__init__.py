"""`anymate-guard exec` and `anymate-guard record`: a guard around any program."""
