"""Fine-tuning: the training loop, the proxy and recovery."""
