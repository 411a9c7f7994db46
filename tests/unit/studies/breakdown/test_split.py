"""Conditional percentiles, the tax and the tail of samples that are known one by one."""

from __future__ import annotations

import numpy as np
import pytest

from sut.studies.breakdown.split import closes, cuts, percentiles, tail_by_size
from tests.unit.studies.breakdown.samples import samples


def a_mix(count: int = 1000, slow: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Decode times of as many pictures, shuffled, of which some take 100 times as long; and which these are."""
    order = np.random.default_rng(1).permutation(count)
    decode = np.where(np.arange(count) < slow, 1000, 10)[order]
    return decode, order < slow


def test_the_tail_is_the_mean_of_the_slowest_hundredth_and_the_middle_of_its_neighbours() -> None:
    decode, _ = a_mix()
    found = cuts(samples(decode=decode, infer=np.full(1000, 30), residual=np.zeros(1000)))

    assert found["mean"] is not None and found["p50"] is not None and found["p99"] is not None
    assert found["p99"] == {
        "samples": 10,
        "latency_ns": 1030,
        "stages_ns": {"decode": 1000, "infer": 30, "residual": 0},
        "tax": pytest.approx(1 - 30 / 1030),
        "residual_share": 0,
    }
    assert (found["p50"]["samples"], found["p50"]["latency_ns"], found["p50"]["tax"]) == (100, 40, 0.25)
    assert found["mean"]["stages_ns"]["decode"] == pytest.approx(19.9)


def test_the_middle_is_by_latency_and_not_by_each_stage() -> None:
    """Half of the samples decode long and infer shortly, half the other way round, but for the ones in the middle."""
    decode = np.concatenate([np.full(450, 1), np.full(100, 7), np.full(450, 90)])
    infer = np.concatenate([np.full(450, 2), np.full(100, 8), np.full(450, 80)])
    found = cuts(samples(decode=decode, infer=infer))

    assert found["p50"] is not None and found["p50"]["stages_ns"] == {"decode": 7, "infer": 8}
    assert found["p50"]["residual_share"] is None and closes(found) is None


def test_of_a_server_the_way_there_and_back_is_no_inference() -> None:
    stages = {"decode": 100, "infer": 100, "infer/queue": 20, "infer/compute": 60}
    mean = cuts(samples(**{name: np.full(4, each) for name, each in stages.items()}))["mean"]

    assert mean is not None and mean["tax"] == pytest.approx(0.7)


def test_a_hundred_samples_have_a_tail_and_fewer_have_none() -> None:
    with_tail, without = (samples(infer=np.arange(1, count + 1)) for count in (100, 99))

    assert cuts(with_tail)["p99"] is not None and percentiles(with_tail.latency_ns)["p99"] is not None
    assert cuts(without)["p99"] is None and percentiles(without.latency_ns)["p99"] is None
    assert tail_by_size(without, ["small"]) is None


def test_of_no_samples_nothing_is_known() -> None:
    nothing = cuts(samples(infer=[], residual=[]))

    assert nothing == {"mean": None, "p50": None, "p99": None} and closes(nothing) is None
    assert set(percentiles(samples(infer=[]).latency_ns).values()) == {None}


@pytest.mark.parametrize(
    ("middle", "tail", "expected"),
    [(20, 50, True), (-20, 50, True), (21, 50, False), (20, 51, False), (20, -51, False)],
)
def test_what_no_stage_explains_is_held_against_both_limits(middle: int, tail: int, expected: bool) -> None:
    """Over or under: what is counted twice is no better than what is not counted."""
    residual = np.where(np.arange(1000) < 990, middle, 2 * tail)
    infer = np.where(np.arange(1000) < 990, 1000 - middle, 2000 - 2 * tail)

    assert closes(cuts(samples(infer=infer, residual=residual))) is expected


def test_the_tail_is_attributed_to_the_size_that_makes_it() -> None:
    decode, is_large = a_mix()
    index = np.where(is_large, 2, np.arange(1000) % 2)
    queue = np.where(is_large, 250, 5)
    loaded = samples(index, queue=queue, decode=decode, infer=np.full(1000, 30))
    alone = samples([0, 1, 2, 2], decode=[10, 20, 900, 1100], infer=[30, 30, 30, 30])
    small, medium, large = tail_by_size(loaded, ["small", "medium", "large"], alone) or []

    assert large == {
        "size": "large",
        "tail_samples": 10,
        "share_of_all": 0.01,
        "share_of_tail": 1.0,
        "latency_ns": 1280,
        "waiting_ns": 250,
        "working_ns": 1030,
        "alone_ns": 1030,
    }
    assert (small["tail_samples"], small["latency_ns"], small["alone_ns"]) == (0, None, 40)
    assert small["share_of_all"] + medium["share_of_all"] == pytest.approx(0.99)


def test_small_pictures_in_the_tail_have_waited() -> None:
    """They are as slow as large ones because they stood behind them."""
    large = np.arange(200) % 100 == 0
    small_behind = np.arange(200) % 100 == 1
    queue, decode = np.where(small_behind, 995, 0), np.where(large, 1000, 5)
    found = tail_by_size(samples(np.where(large, 1, 0), queue=queue, decode=decode), ["small", "large"])

    assert found is not None and [row["tail_samples"] for row in found] in ([1, 1], [2, 0], [0, 2])
    assert all(row["waiting_ns"] == 995 for row in found if row["size"] == "small" and row["tail_samples"])
