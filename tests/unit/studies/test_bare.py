"""The loop without the harness, on planted devices that sleep: it can be slower than planted, and never faster."""

from __future__ import annotations

from typing import Any

import pytest

from sut.config import make_config
from sut.errors import InputError
from sut.pipeline.assembly import assemble
from sut.studies.bare import Bare, has_loop, run_bare

MS = 1_000_000


def loop_of(seconds: float = 0.3, **settings: Any) -> Bare:
    planted = {"a_ms": 10, "b_ms": 0, "devices": 2}
    config = make_config({"backend": "simulated", "backend_options": planted, "count": 3, **settings})
    return run_bare(assemble(config), 8, seconds, "a test")


def test_all_lanes_are_busy_in_offline() -> None:
    both = loop_of(scenario="Offline", lanes=2, max_batchsize=4)

    assert both.samples_per_second is not None and both.p50_ns is not None and both.p99_ns is not None
    assert both.samples_per_second <= 800 * 1.001
    assert 10 * MS <= both.p50_ns <= both.p99_ns
    assert both.cpu_seconds_per_sample is not None and 0 < both.cpu_seconds_per_sample < 0.01


def test_a_query_is_shared_among_the_lanes_or_cut_on_the_one() -> None:
    shared = loop_of(scenario="MultiStream", lanes=2, max_batchsize=4)
    alone = loop_of(scenario="MultiStream", lanes=1, max_batchsize=4)

    assert shared.p50_ns is not None and alone.p50_ns is not None
    assert shared.p50_ns >= 10 * MS and alone.p50_ns >= 20 * MS


@pytest.mark.parametrize("boundary", ["tensor", "pixels", "jpeg"])
def test_a_picture_at_a_time_at_every_boundary(boundary: str) -> None:
    found = loop_of(scenario="SingleStream", boundary=boundary)

    assert found.p50_ns is not None and found.p50_ns >= 10 * MS


def test_no_time_is_for_one_picture_alone() -> None:
    found = loop_of(0, scenario="Offline")

    assert found.first_s >= 0.01 and found.samples_per_second is None


def test_what_a_run_would_be_refused_for_is_refused_here() -> None:
    with pytest.raises(InputError, match="backend option devices goes with the device cpu"):
        loop_of(device="sim:0")


def test_there_is_no_loop_where_somebody_else_sets_the_pace_or_another_model_answers_too() -> None:
    second = {"scenario": "Offline", "boundary": "jpeg", "identify": "efficientnet-lite0"}
    for settings in ({"scenario": "Server"}, {"preprocess_workers": 2}, second):
        assert not has_loop(make_config(settings))
    assert has_loop(make_config({"scenario": "Offline"}))
