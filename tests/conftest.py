"""What holds for all tests."""

import os
import signal
import time
from collections import Counter

import pytest
from hypothesis import settings

import sut  # noqa: F401 - has ONNX Runtime send nothing, whichever test imports it first

settings.register_profile("any machine", deadline=None)  # how long an example takes is nobody's fault
settings.load_profile("any machine")

os.environ["TZ"] = "UTC"  # of the logs that tests write
time.tzset()

# Tests run several at a time: threads of PyTorch's that spin while they wait take the cores from those they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What a test runner under nohup or in the background ignores, its children would ignore too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what the project's own marks mean, before pytest chooses by marks."""
    seen = Counter[tuple[str, str]]()
    for item in items:
        if item.get_closest_marker("timed"):
            item.add_marker(pytest.mark.flaky(reruns=2))
        first = item.get_closest_marker("first")
        if first and isinstance(item, pytest.Function):
            test = (item.module.__name__, item.originalname)
            seen[test] += 1
            if seen[test] > first.args[0]:
                item.add_marker(pytest.mark.slow)
