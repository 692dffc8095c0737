"""Fine-tuning: the loop around the canonical step, the proxy and its recovery."""
