"""What is left of a run: result.json, how to read it with care, and how to show it."""
