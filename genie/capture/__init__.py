"""Capture: from a PyTorch module to the graph IR, by `torch.export` with our own encoder."""
