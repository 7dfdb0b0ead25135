"""The routes that bots call, and those that steer the sandbox."""
