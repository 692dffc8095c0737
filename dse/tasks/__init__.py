"""Tasks: what a network's outputs stand for, and the loss and the metrics of that."""
