"""Where known models come from: one file = one source."""
