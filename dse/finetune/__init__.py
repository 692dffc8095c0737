"""Fine-tuning: which parameters train, the canonical step, the loop around it and the proxy."""
