"""The paper's claims on planted figures: all hold, and one that contradicts a claim flips that one and no other."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest

from sut.studies.beyond_inference.paper import CLAIMS
from sut.studies.beyond_inference.parts import PARTS
from sut.studies.claims import Value, Verdict, judged
from sut.studies.sweeping.grids import MOST_CONCURRENCY

Planted = dict[str, dict[str, list[Value]]]
SPREAD = (0.99, 1.0, 1.01, 1.0)
"""Of four rounds, as an interval takes."""


def rounds(value: float, spread: Sequence[float] = SPREAD) -> list[Value]:
    return [value * each for each in spread]


HOLDING: Planted = {
    "latency-medium": {"latency_ns": rounds(10e6), "tax": rounds(0.6), "waiting": rounds(0.7)},
    "latency-large": {"latency_ns": rounds(300e6), "tax": rounds(0.982, (0.999, 1, 1.001, 1))},
    "latency-medium-gpu": {"latency_ns": rounds(8e6)},
    "latency-large-gpu": {"latency_ns": rounds(60e6)},
    "throughput-large": {"infer": rounds(1000), "end_to_end": rounds(150)},
    "concurrency": {
        "highest": [MOST_CONCURRENCY],
        "decline_at": [1000],
        "memory_full_at": [1050],
        "best": rounds(500),
        "most": rounds(400),
    },
    "models": {
        "share of mobilenet-v2": rounds(0.3),
        "share of vit-b": rounds(0.9),
        "rate of mobilenet-v2": rounds(100),
        "rate of vit-b": rounds(20),
    },
    "models-gpu": {"rate of mobilenet-v2": rounds(300), "rate of vit-b": rounds(24)},
    "tinyvit": {"infer": rounds(100), "end_to_end": rounds(110)},
    "devices": {
        "CPU preprocessing, one device": rounds(10),
        "CPU preprocessing, all devices": rounds(12),
        "inference only, one device": rounds(500),
        "inference only, all devices": rounds(1900),
    },
    "devices-gpu": {"GPU preprocessing, one device": rounds(100), "GPU preprocessing, all devices": rounds(350)},
    "energy": {"medium, CPU": rounds(1), "medium, GPU": rounds(1), "medium, CPU and GPU": rounds(2)}
    | {"large, CPU": rounds(9), "large, GPU": rounds(1), "large, CPU and GPU": rounds(10)},
    "energy-gpu": {"medium, CPU": rounds(0.5), "medium, GPU": rounds(1.1), "medium, CPU and GPU": rounds(1.6)},
    "ladder": {
        "one-by-one decode": rounds(100),
        "batched decode": rounds(150),
        "GPU decode": rounds(200),
        "dynamic batching": rounds(400),
    },
}
CONTRADICTIONS: dict[str, Planted] = {
    "latency-medium": {"latency-medium": {"tax": rounds(0.5)}},
    "latency-large": {"latency-large": {"tax": rounds(0.9)}},
    "latency-gpu": {"latency-large-gpu": {"latency_ns": rounds(240e6)}},  # 1.25 x, as of medium ones
    "waiting": {"latency-medium": {"waiting": rounds(0.4)}},
    "throughput": {"throughput-large": {"end_to_end": rounds(400)}},
    "decline": {"concurrency": {"most": rounds(490, (1.0, 1.001, 0.999, 1.0)), "best": rounds(500, (1.0,) * 4)}},
    "memory": {"concurrency": {"memory_full_at": [None]}},
    "models": {"models": {"share of vit-b": rounds(0.2)}},
    "models-gpu": {"models-gpu": {"rate of vit-b": rounds(15)}},
    "tinyvit": {"tinyvit": {"end_to_end": rounds(80)}},
    "devices": {"devices": {"inference only, all devices": rounds(520)}},
    "devices-gpu": {"devices-gpu": {"GPU preprocessing, all devices": rounds(101)}},
    "energy": {"energy": {"large, CPU and GPU": rounds(1.5)}},
    "energy-gpu": {"energy-gpu": {"medium, CPU and GPU": rounds(2.02)}},
    "ladder": {"ladder": {"dynamic batching": rounds(300)}},
    "rungs": {"ladder": {"batched decode": rounds(80), "GPU decode": rounds(90)}},
    "gpu-decode": {"ladder": {"GPU decode": rounds(120)}},
}
"""For each claim what flips it."""


def verdicts(change: Planted) -> dict[str, Verdict]:
    figures = copy.deepcopy(HOLDING)
    for part, changed in change.items():
        figures[part] |= changed
    return {claim.key: judged(claim, figures, {})[0] for claim in CLAIMS}


def test_all_hold_on_what_the_paper_says() -> None:
    assert verdicts({}) == {claim.key: "holds" for claim in CLAIMS}


@pytest.mark.parametrize("key", [claim.key for claim in CLAIMS])
def test_one_contradiction_flips_that_claim_and_no_other(key: str) -> None:
    assert verdicts(CONTRADICTIONS[key]) == {
        claim.key: "does not hold" if claim.key == key else "holds" for claim in CLAIMS
    }


@pytest.mark.parametrize("key", [claim.key for claim in CLAIMS])
def test_three_rounds_tell_nothing_and_none_is_not_measured(key: str) -> None:
    [claim] = [each for each in CLAIMS if each.key == key]
    few = {part: {name: values[:3] for name, values in found.items()} for part, found in HOLDING.items()}
    without = {part: found for part, found in HOLDING.items() if part != claim.parts[-1]}

    # Whether memory is full where the throughput declines is no matter of an interval, whether that declines is.
    assert judged(claim, few, {})[0] == ("cannot be tested here" if key == "memory" else "cannot be told")
    assert judged(claim, without, {})[0] == "not measured yet"
    verdict, ours = judged(claim, without, {claim.parts[-1]: "there is no GPU"})
    assert (verdict, ours.words) == ("cannot be tested here", "there is no GPU")


def words(key: str, change: Planted) -> str:
    [claim] = [each for each in CLAIMS if each.key == key]
    figures = copy.deepcopy(HOLDING)
    for part, changed in change.items():
        figures[part] |= changed
    verdict, ours = judged(claim, figures, {})
    return f"{verdict}: {ours.words}"


@pytest.mark.parametrize(
    ("key", "change", "told"),
    [
        ("latency-medium", {}, "holds: 60 % (5"),
        ("latency-medium", {"latency-medium": {"tax": rounds(0.56)}}, "cannot be told: 56 % ("),
        ("latency-gpu", {}, "holds: medium 1.25 x, large 5 x: 4 x ("),
        ("decline", {"concurrency": {"decline_at": [None]}}, "does not hold: no decline up to 4,096 outstanding"),
        ("decline", {"concurrency": {"decline_at": [None], "highest": [512]}}, "cannot be told: no decline up to 512"),
        ("decline", {}, "holds: 20 % ("),
        ("memory", {"concurrency": {"decline_at": [None]}}, "cannot be tested here: throughput did not decline here"),
        ("memory", {"concurrency": {"most": rounds(500)}}, "cannot be tested here: throughput did not decline here"),
        ("memory", {}, "holds: decline from 1,000 on, memory is full at 1,050 outstanding"),
        ("models", {}, "holds: mobilenet-v2 30 %, vit-b 90 %"),
        ("models-gpu", {"models-gpu": {"rate of vit-b": rounds(60)}}, "does not hold: "),  # the same factor for both
        ("throughput", {}, "holds: 85 % ("),
        ("energy", {"energy": {"medium, external": rounds(5), "large, external": rounds(50)}}, "external meter"),
        ("energy", {}, "holds: medium 2 J, large 10 J, 5 x ("),
        ("energy-gpu", {}, "holds: CPU 2 J, GPU 1.6 J, 1.25 x ("),
        ("devices", {}, "holds: from one device to all CPU preprocessing 1.2 x, inference only 3.8 x: 3.17 x ("),
        ("rungs", {}, "holds: the least of 2: 1.5 x ("),
        ("ladder", {}, "holds: 4 x ("),
        ("gpu-decode", {"ladder": {"GPU decode": [None]}}, "cannot be tested here: it does not run here"),
    ],
)
def test_words_have_our_figure(key: str, change: Planted, told: str) -> None:
    found = words(key, change)
    assert found.startswith(told) or (told in found and ":" not in told), found


def test_one_rung_alone_is_no_ladder() -> None:
    alone = {"ladder": {"GPU decode": rounds(100)}}

    for key in ("ladder", "rungs", "gpu-decode"):
        [claim] = [each for each in CLAIMS if each.key == key]
        assert judged(claim, alone, {})[0] == "cannot be tested here"


def test_each_claim_has_a_name_of_its_own_and_parts_that_are_there() -> None:
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS) == len(CONTRADICTIONS)
    assert {name for claim in CLAIMS for name in claim.parts} == set(PARTS) == set(HOLDING)
