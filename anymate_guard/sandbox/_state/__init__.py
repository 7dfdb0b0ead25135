"""What one sandbox holds: what Anymate remembers, tokens, faults to come, and requests seen."""
