"""What holds for all tests."""

import sut  # noqa: F401 - has ONNX Runtime send nothing, whichever test imports it first
