"""CUDA graphs by the driver's own functions, which are not there: in which order they are called, and what is freed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kernels import gpu_graph
from kernels.gpu_graph import Graph, GraphError

STREAM, GRAPH, EXEC = 0x1000, 0x2000, 0x3000
CAPTURED = ["cuStreamBeginCapture_v2", "work", "cuStreamEndCapture"]


class FakeCuda:
    """libcuda.so.1: notes what is called; the function ``fails`` returns an error, and gives nothing."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = ""

    def __getattr__(self, name: str) -> Callable[..., int]:
        def function(*arguments: Any) -> int:
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"operation failed due to a previous error"
                return 0
            self.calls.append(name)
            if name == self.fails:
                return 901
            match name, arguments:
                case "cuStreamBeginCapture_v2", (stream, mode):
                    assert (stream.value, mode) == (STREAM, 1)
                case "cuStreamEndCapture", (stream, graph):
                    graph._obj.value = GRAPH
                case "cuGraphInstantiateWithFlags", (made, graph, flags):
                    assert (graph.value, flags.value) == (GRAPH, 0)
                    made._obj.value = EXEC
                case "cuGraphDestroy", (graph,):
                    assert graph.value == GRAPH
                case "cuGraphLaunch", (made, stream):
                    assert (made.value, stream.value) == (EXEC, STREAM)
                case "cuGraphExecDestroy", (made,):
                    assert made.value == EXEC
                case _:
                    raise AssertionError(f"{name}{arguments}")
            return 0

        return function


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(gpu_graph.ctypes, "CDLL", lambda name: fake)
    return fake


def test_what_was_captured_is_launched_again_and_freed(cuda: FakeCuda) -> None:
    graph = Graph(STREAM, lambda: cuda.calls.append("work"))
    assert cuda.calls == [*CAPTURED, "cuGraphInstantiateWithFlags", "cuGraphDestroy"]

    cuda.calls.clear()
    graph.launch(STREAM)
    graph.destroy()

    assert cuda.calls == ["cuGraphLaunch", "cuGraphExecDestroy"]


@pytest.mark.parametrize(
    ("fails", "calls"),
    [
        ("cuStreamBeginCapture_v2", CAPTURED[:1]),
        ("cuStreamEndCapture", CAPTURED),
        ("cuGraphInstantiateWithFlags", [*CAPTURED, "cuGraphInstantiateWithFlags", "cuGraphDestroy"]),
    ],
)
def test_what_the_driver_refuses_is_said_and_nothing_is_left(cuda: FakeCuda, fails: str, calls: list[str]) -> None:
    cuda.fails = fails

    with pytest.raises(GraphError, match=f"^{fails} failed: operation failed due to a previous error$") as raised:
        Graph(STREAM, lambda: cuda.calls.append("work"))

    assert (raised.value.status, cuda.calls) == (901, calls)


def test_a_capture_in_which_something_is_raised_is_ended(cuda: FakeCuda) -> None:
    with pytest.raises(ZeroDivisionError):
        Graph(STREAM, lambda: cuda.calls.append(f"{1 // 0}"))

    assert cuda.calls == ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphDestroy"]
