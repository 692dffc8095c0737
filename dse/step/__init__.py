"""The canonical training step: its settings, optimizer, scheme and checkpointing."""
