"""Rates of parts that were planted: which limits, how far from what they allow, what they cost each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sut.config import make_config
from sut.models.registry import find
from sut.studies.bare import Span
from sut.studies.breakdown.alone import Rates, per_second, run_parts
from sut.studies.breakdown.bottleneck import bytes_moved, judged
from sut.studies.breakdown.cells import settled
from sut.studies.breakdown.words import limit_words


def rates(preprocess: float, infer: float, **more: float) -> Rates:
    """Five rounds of planted rates with a spread of 1 %."""
    told = {"preprocess": preprocess, "infer": infer, "preprocess_beside": preprocess, "infer_beside": infer}
    planted = told | {"in_turn": 1 / (1 / preprocess + 1 / infer)} | more
    return {name: [rate * (1 + each / 100) for each in (0, 1, -1, 0.5, -0.5)] for name, rate in planted.items()}


@pytest.mark.parametrize(("pace", "limits"), [((50, 200), "preprocessing"), ((200, 50), "inference"), ((90, 90), None)])
def test_the_slower_part_limits_and_equal_ones_do_not(pace: tuple[float, float], limits: str | None) -> None:
    found = judged(rates(*pace))

    assert (found["limits"], found["rounds"], found["overlapped"]) == (limits, 5, False)
    assert found["bound_per_second"] == pytest.approx(1 / (1 / pace[0] + 1 / pace[1]))
    assert found["of_bound"]["ratio"] == pytest.approx(1)
    assert found["other_bound_per_second"] == pytest.approx(min(pace))


def test_where_the_parts_overlap_the_slower_one_is_the_bound() -> None:
    found = judged(rates(50, 200, end_to_end=45))

    assert found["overlapped"] and found["bound_per_second"] == pytest.approx(50)
    assert found["of_bound"]["ratio"] == pytest.approx(0.9)
    assert found["other_bound_per_second"] == pytest.approx(40)


def test_lanes_that_share_a_device_overlap_each_other() -> None:
    found = judged(rates(50, 200, in_turn=48), lanes_overlap=True)

    assert found["overlapped"] and found["bound_per_second"] == pytest.approx(50)
    assert found["of_bound"]["ratio"] == pytest.approx(0.96)


def test_what_the_parts_cost_each_other() -> None:
    found = judged(rates(50, 200, preprocess_beside=25, infer_beside=160))

    assert found["slowed"]["preprocess"]["ratio"] == pytest.approx(2)
    assert found["slowed"]["infer"]["ratio"] == pytest.approx(1.25)
    assert found["both_at_once"] == pytest.approx(0.5 + 0.8)


@pytest.mark.parametrize(("whole", "outlier"), [(220, "repeated"), (40, "refuted"), (200, None)])
def test_end_to_end_faster_than_inference_alone_is_repeated_or_refuted(whole: float, outlier: str | None) -> None:
    assert judged(rates(1000, 200, in_turn=whole))["outlier"] == outlier


def test_the_words_name_the_part_and_both_bounds() -> None:
    words = limit_words(judged(rates(50, 200)))

    assert words.startswith(
        "preprocessing limits; end to end is 1 x (1 to 1) of what they allow, 1/(1/P + 1/I); slower beside"
    )
    assert "end to end is not faster than inference alone: 0.2 x" in words


def test_bytes_are_arithmetic() -> None:
    recipe = replace(find("efficientnet-lite0").recipe, size=10, dtype="float16")

    assert bytes_moved(recipe, [(100, 50), (300, 150)]) == {"jpeg": 200.0, "pixels": 300.0, "tensor": 600.0}


def measured(preprocess_ms: float, infer_ms: float, **settings: Any) -> Rates:
    planted = {"decode_ms": preprocess_ms, "resize_ms": 0, "normalize_ms": 0}
    config = make_config(
        {
            **{"backend": "simulated", "preprocess": "simulated", "boundary": "jpeg", "count": 3, "max_batchsize": 1},
            **{"backend_options": {"a_ms": infer_ms, "b_ms": 0}, "preprocess_options": planted, **settings},
        }
    )
    return run_parts(settled(config, "Offline"), 1, 0.2, "a test")


def test_each_part_takes_what_was_planted() -> None:
    """A sleep is never shorter than planted, so that no rate is over the planted one."""
    found = measured(50, 100)

    assert set(found) == {"preprocess", "infer", "in_turn", "preprocess_beside", "infer_beside"}
    planted = {"preprocess": 20, "infer": 10, "in_turn": 1 / 0.15, "preprocess_beside": 20, "infer_beside": 10}
    for name, rate in planted.items():
        assert 0 < found[name][0] <= 1.001 * rate, name
    assert found["preprocess"][0] > found["infer"][0] > found["in_turn"][0]


@pytest.mark.slow
def test_lanes_that_share_a_device_are_no_faster_than_it_is() -> None:
    spans = [Span([50], 0, 50), Span([100], 0, 100)]  # the second waited for the first

    assert per_second(spans, shared=True) == 2e9 / 100
    assert per_second(spans, shared=False) == 1e9 / 50 + 1e9 / 100

    found = measured(50, 250, lanes=2)

    assert max(found[name][0] for name in ("infer", "in_turn", "infer_beside")) <= 1.001 * 4
