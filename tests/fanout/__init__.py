"""Tests of the examples that spread a batch over processes and machines."""
