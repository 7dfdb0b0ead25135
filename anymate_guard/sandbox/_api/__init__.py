"""The routes under /api and /connect that bots call, and those under /sandbox."""
