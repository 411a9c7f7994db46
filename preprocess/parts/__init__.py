"""What the ways are made of: decoders, headers, compiled kernels, memory on a device."""
