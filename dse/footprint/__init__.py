"""The memory of a single training step, as `dse memory` shows it."""
