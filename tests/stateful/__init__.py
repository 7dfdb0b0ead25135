"""The promises of the journal as a model, against any order of events."""
