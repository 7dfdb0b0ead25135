"""One exchange over HTTP, within a deadline."""
