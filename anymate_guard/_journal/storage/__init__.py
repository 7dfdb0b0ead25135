"""How a journal is stored: a sqlite file, its tables, and the folder that it is in."""
