"""Details of ``infer``: within it whatever a server tells, and counted in no latency twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.mlperf.logs import Trace
from sut.pipeline.lane import lane_stages, within
from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.results.stages import is_detail, join

_ANY = st.one_of(st.integers(-100, 300), st.integers(-(2**70), 2**70))


@given(st.integers(0, 2**62), st.integers(0, 200), st.lists(_ANY, max_size=4))
def test_parts_lie_in_order_within_their_stage(begin: int, took: int, parts: list[int]) -> None:
    stamps = within(begin, begin + took, parts)

    assert len(stamps) == 2 * len(parts)
    assert [begin, *stamps, begin + took] == sorted([begin, *stamps, begin + took])
    whole = [max(0, part) for part in parts]
    if sum(whole) <= took:
        assert [end - start for start, end in zip(stamps[::2], stamps[1::2], strict=True)] == whole


@pytest.mark.parametrize(
    ("name", "stages", "told"),
    [
        ("infer/queue", ("infer", "infer/queue"), True),
        ("infer", ("infer", "infer/queue"), False),
        ("identify/send", ("infer", "identify/send"), False),
        ("/queue", ("infer",), False),
        ("infer", (), False),
    ],
)
def test_what_is_a_detail(name: str, stages: tuple[str, ...], told: bool) -> None:
    assert is_detail(name, stages) is told


def test_a_detail_is_taken_from_no_residual() -> None:
    stages = ("preprocess", *lane_stages(False, ("postprocess",), ("queue", "compute")))
    ledger = Ledger(LedgerShape.of(1, stages=stages))
    ledger.issue(0, [0], 100)
    ledger.words[Counter.ISSUED] = ledger.words[Counter.DONE] = ledger.words[Counter.BATCHES] = 1
    stamps = [110, 120, 120, 220, *within(120, 220, (30, 50)), 220, 230, 230, 240]
    ledger.batch(0, [(0, 1)], 0, stamps, 0)

    trace = Trace(np.array([0]), np.array([7]), np.array([150]))
    found = join(ledger, trace)

    assert stages[1:4] == ("infer", "infer/queue", "infer/compute")
    assert {name: int(values[0]) for name, values in found.per_sample.items()} == {
        **{"issue_delay": 7, "queue": 10, "preprocess": 10, "infer": 100, "infer/queue": 30, "infer/compute": 50},
        **{"postprocess": 10, "complete": 10, "residual": 3},
    }
    assert found.cost_ns == {"preprocess": 10, "infer": 100, "postprocess": 10, "complete": 10}
