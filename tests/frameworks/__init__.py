"""Bots inside real frameworks, against the sandbox; and the code of the documentation's pages about them."""
