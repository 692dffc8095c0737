"""The memory model: trace one training step, compile it, evaluate it for any channel counts."""
