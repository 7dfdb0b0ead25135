"""`anymate-guard check`: whether the settings are right, and what to do where they are not."""
