"""A GPU report as one file that a stranger can send, and the judgement of such a file by whoever gets it."""
