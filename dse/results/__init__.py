"""What a run has found: its records, its front and the ties between candidates."""
