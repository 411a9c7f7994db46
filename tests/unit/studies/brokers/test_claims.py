"""The paper's claims over planted figures: all hold, each flips alone, and what cannot be tested says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sut.studies.brokers.paper import NOT_DURABLE
from sut.studies.brokers.report import told_of
from tests.unit.studies.brokers.planted import study

FUSED = {1: 100.0, 5: 50.0, 9: 30.0, 25: 10.0}
REDIS = {1: 80.0, 5: 45.0, 9: 33.0, 25: 23.5}
KAFKA = {1: 50.0, 5: 30.0, 9: 20.0, 25: 10.0}
SHARES = {"redis": 0.05, "kafka": 0.75}
RATES = {"fused": FUSED, "redis": REDIS, "kafka": KAFKA}


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {row["claim"]: row["verdict"] for row in told["claims"]}


def test_all_hold_where_the_papers_figures_are_planted(tmp_path: Path) -> None:
    told = told_of(study(tmp_path, RATES, SHARES), 60)

    assert verdicts(told) == dict.fromkeys(("kafka-share", "redis-share", "redis-kafka", "fused"), "holds")
    ours = {row["claim"]: row["ours"] for row in told["claims"]}
    assert ours["kafka-share"].startswith("75 % (") and ours["redis-share"].startswith("5 % (")
    assert ours["redis-kafka"] == "2.35 x (2.35 to 2.35)"
    assert "0.9 x (" in ours["fused"] and ours["fused"].endswith("(redis, 5 a frame)")


@pytest.mark.parametrize(
    ("claim", "rates", "shares"),
    [
        ("kafka-share", {}, {"kafka": 0.6}),
        ("redis-share", {}, {"redis": 0.2}),
        ("redis-kafka", {"kafka": KAFKA | {25: 20.0}}, {}),
        ("fused", {"redis": REDIS | {5: 60.0}}, {}),
    ],
)
def test_each_flips_alone(claim: str, rates: dict[str, Any], shares: dict[str, float], tmp_path: Path) -> None:
    found = verdicts(told_of(study(tmp_path, RATES | rates, SHARES | shares), 60))

    assert found == {name: "does not hold" if name == claim else "holds" for name in found}


def test_a_draw_below_nine_faces_cannot_be_told(tmp_path: Path) -> None:
    rates = RATES | {"redis": REDIS | {5: 50.0}}

    assert verdicts(told_of(study(tmp_path, rates, SHARES), 60))["fused"] == "cannot be told"


def test_no_figure_of_a_kafka_without_disks_stands_beside_theirs(tmp_path: Path) -> None:
    told = told_of(study(tmp_path, RATES, SHARES, durable=False), 60)

    rows = {row["claim"]: row for row in told["claims"]}
    for claim in ("kafka-share", "redis-kafka"):
        assert (rows[claim]["verdict"], rows[claim]["ours"], rows[claim]["ratio"]) == (
            "cannot be tested here",
            None,
            None,
        )
        assert rows[claim]["reason"] == NOT_DURABLE and "--durable" in rows[claim]["command"]
    assert [rows[claim]["verdict"] for claim in ("redis-share", "fused")] == ["holds", "holds"]
    assert not any("2.35" in words or "75 %" in words for words in told["words"] if "they say" in words)


def test_a_kafka_without_disks_that_is_ahead_below_nine_is_no_figure_against_them(tmp_path: Path) -> None:
    rates = RATES | {"kafka": KAFKA | {5: 200.0}}

    assert verdicts(told_of(study(tmp_path / "a", rates, SHARES, durable=False), 60))["fused"] == "holds"
    assert verdicts(told_of(study(tmp_path / "b", rates, SHARES), 60))["fused"] == "does not hold"


@pytest.mark.parametrize(
    ("gone", "untestable"),
    [
        ("redis", {"redis-share", "redis-kafka"}),
        ("kafka", {"kafka-share", "redis-kafka"}),
    ],
)
def test_where_a_broker_is_not_there_its_claims_say_so(gone: str, untestable: set[str], tmp_path: Path) -> None:
    rates = {name: each for name, each in RATES.items() if name != gone}
    told = told_of(study(tmp_path, rates, SHARES, absent={gone: "nobody answers"}), 60)

    assert {claim for claim, verdict in verdicts(told).items() if verdict == "cannot be tested here"} == untestable
    assert {row["reason"] for row in told["claims"]} == {"nobody answers", None}
    assert f"{gone} is left out: nobody answers" in told["words"]


def test_shared_memory_is_no_broker_of_theirs(tmp_path: Path) -> None:
    both = {"redis": "nobody answers", "kafka": "no package"}
    told = told_of(study(tmp_path, {"fused": FUSED, "shared": REDIS}, absent=both), 60)

    assert set(verdicts(told).values()) == {"cannot be tested here"}
    assert told["crossing"] == {"verdict": "found", "at": 9, "low": 9, "high": 9}


def test_without_the_fan_outs_that_a_claim_is_about_it_is_not_judged(tmp_path: Path) -> None:
    rates = {name: {9: each[9]} for name, each in RATES.items()}

    found = verdicts(told_of(study(tmp_path, rates, SHARES), 60))

    assert (found["redis-kafka"], found["fused"]) == ("not measured yet", "cannot be tested here")
