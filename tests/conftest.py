"""What holds for all tests."""

import signal

from hypothesis import settings

import sut  # noqa: F401 - has ONNX Runtime send nothing, whichever test imports it first

settings.register_profile("any machine", deadline=None)  # how long an example takes is nobody's fault
settings.load_profile("any machine")

# What a test runner under nohup or in the background ignores, its children would ignore too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
