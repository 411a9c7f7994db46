"""What backends, preprocessors and kernels share, below all of them."""
