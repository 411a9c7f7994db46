"""Runtimes that run the model: one file, one runtime."""
