"""Reports of a run: plots, tables and an index page."""
