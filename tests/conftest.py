"""What holds for all tests."""

from hypothesis import settings

import sut  # noqa: F401 - has ONNX Runtime send nothing, whichever test imports it first

settings.register_profile("any machine", deadline=None)  # how long an example takes is nobody's fault
settings.load_profile("any machine")
