"""Detection: boxes in a picture, each with a score and a category."""
