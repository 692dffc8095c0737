"""A training program for ExecuTorch's runtime: forward and backward pass in one .pte file."""
