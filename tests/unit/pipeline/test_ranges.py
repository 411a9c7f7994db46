"""NVTX ranges: on a GPU with a trace only, as many opened as closed, named after the stages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Slot
from sut.config import RunConfig
from sut.pipeline import system
from sut.pipeline.ranges import RangedRunner, RangedSource, nvtx_for
from sut.pipeline.system import SUT
from sut.version import NAME
from tests.unit.pipeline.test_pipeline import Doubler, Numbers


class FakeNvtx:
    """Writes down what is opened and closed; closing what is not open is an error."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.told: list[str] = []

    def push_range(self, message: str, *, domain: str) -> None:
        self.open.append(message)
        self.told.append(f"{NAME}: {message}")

    def pop_range(self, domain: str) -> None:
        self.told.append(f"end of {self.open.pop()}")


def filled(nvtx: FakeNvtx, source: Numbers, indices: Sequence[int], marks: list[str]) -> None:
    RangedSource(source, nvtx).fill(indices, Slot(8, {"input": [0] * 8}), marks.append)


def test_each_stage_has_a_range_that_ends_where_it_is_marked() -> None:
    nvtx, marks = FakeNvtx(), list[str]()

    filled(nvtx, Numbers(("decode", "resize")), [1, 2], marks)
    RangedRunner(Doubler(), nvtx).infer(Slot(2, {"input": np.zeros(2)}))

    assert marks == ["decode", "resize"]
    assert nvtx.told == [
        f"{NAME}: decode 2",
        "end of decode 2",
        f"{NAME}: resize 2",
        "end of resize 2",
        f"{NAME}: infer 2",
        "end of infer 2",
    ]


@pytest.mark.parametrize("marked", [(), ("decode",), ("decode", "resize")])
def test_what_fails_leaves_no_range_open(marked: tuple[str, ...]) -> None:
    nvtx = FakeNvtx()

    class Failing(Numbers):
        def fill(self, indices: Sequence[int], target: Any, mark: Any) -> Any:
            super().fill(indices, target, mark)
            raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        filled(nvtx, Failing(("decode", "resize"), marked), [1], [])
    with pytest.raises(RuntimeError, match="no device"):
        RangedRunner(Doubler(RuntimeError("no device")), nvtx).infer(Slot(1, {}))

    assert nvtx.open == []


@pytest.mark.parametrize(
    ("device", "trace", "installed", "is_wanted"),
    [
        ("cuda", Path("t.json"), True, True),
        ("cuda:1", Path("t.json"), True, True),
        ("cuda", Path("t.json"), False, False),
        ("cuda", None, True, False),
        ("cpu", Path("t.json"), True, False),
    ],
)
def test_only_a_traced_run_on_a_gpu_looks_for_the_package(
    device: str, trace: Path | None, installed: bool, is_wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvtx = FakeNvtx()
    monkeypatch.setitem(sys.modules, "nvtx", nvtx if installed else None)

    assert nvtx_for(RunConfig(device=device, trace=trace)) is (nvtx if is_wanted else None)


def test_a_whole_system_opens_ranges_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    nvtx = FakeNvtx()
    monkeypatch.setattr(system, "nvtx_for", lambda config: nvtx)
    config = RunConfig(backend="simulated", preprocess="simulated", boundary="jpeg", scenario="SingleStream")
    answered: list[Sequence[int]] = []

    def complete(ids: Sequence[int], payloads: Any) -> int:
        answered.append(list(ids))
        return 0

    with SUT(config, complete=complete) as sut:
        sut.library.load([0, 1])
        sut.start(sut.ledger)
        sut.issue([7], [1])
        sut.flush()

    assert answered == [[7]]
    assert [word.partition(": ")[2] for word in nvtx.told if not word.startswith("end")] == [
        "decode 1",
        "resize 1",
        "normalize 1",
        "infer 1",
    ]
    assert nvtx.open == []
