"""Engines that run a training step: lean training has stock PyTorch's gradients in less memory."""
