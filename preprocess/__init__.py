"""Ways from a picture's bytes to the model's input: one file, one way."""
