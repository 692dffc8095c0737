"""The results of a run: its records, its front, and ties between candidates."""
