"""Pictures, tables and an index of what a run has found."""
