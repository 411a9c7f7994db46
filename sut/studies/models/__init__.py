"""``sut study models``: the share of inference, and the worth of preprocessors, against the size of the model."""
