"""Bots as processes of their own: signals, forks, exits, kills and overlap."""
