"""How fast a guarded run is, beside the official SDK and calls written by hand: `python -m benchmarks`."""
