"""Ways to lower a step's memory that need no search, each usable alone."""
