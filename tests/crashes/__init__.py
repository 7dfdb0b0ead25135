"""Bots that are killed, and bots that overlap: what Anymate has at the end, and whether that is right."""
