"""Memory of a single training step: what the command `dse memory` computes."""
