"""Whole programs that start one run, record three entries and finish it, in the ways there are."""
