"""``sut study ladder`` on planted devices that sleep: what was planted is found, what cannot run is a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.children import Finished, run_python

HEAD = "model: efficientnet-lite0\ndataset: demo\nconcurrency: 4\nseconds: 0.2\nrungs:\n"
NO_PREPROCESSING = "preprocess_options: {decode_ms: 0, resize_ms: 0, normalize_ms: 0}"
FIRST = (
    "  - name: alone\n"
    "    settings: {backend: simulated, preprocess: simulated, lanes: 1, max_batchsize: 1, "
    f"backend_options.a_ms: 100, backend_options.b_ms: 0, {NO_PREPROCESSING}}}\n"
)


def ladder(rungs: str, *words: str, cwd: Path) -> Finished:
    (cwd / "ladder.yaml").write_text(HEAD + rungs)
    command = ("-m", "sut", "study", "ladder", "--config", "ladder.yaml", "--output", "out", "--json", *words)
    return run_python(*command, cwd=cwd, timeout_s=900)


def told_by(child: Finished) -> dict[str, Any]:
    assert child.code == 0, child.err
    report: dict[str, Any] = json.loads(child.out)
    return report


def rung(name: str, **settings: object) -> str:
    words = ", ".join(f"{key.replace('__', '.')}: {value}" for key, value in settings.items())
    return f"  - name: {name}\n    like: alone\n    settings: {{{words}}}\n"


def test_two_rungs_run_and_one_that_cannot_is_a_row_with_its_reason(tmp_path: Path) -> None:
    rungs = FIRST + rung("elsewhere", device="cuda") + rung("together", max_batchsize=4)

    told = told_by(ladder(rungs, "--rounds", "1", cwd=tmp_path))

    assert (told["schema"], told["command"], told["weights"]) == (1, "study ladder", "trained")
    alone, elsewhere, together = told["rows"]
    assert "device 'cuda'" in elsewhere["reason"] and not elsewhere["failed"] and elsewhere["rounds"] == 0
    # Sleeping may take longer than asked, never less: of one alone no more than 10 a second, of four together 40.
    assert 0 < alone["samples_per_second"] <= 10.5 < together["samples_per_second"] <= 42
    assert (together["before"], together["against_before"]["pairs"]) == ("alone", 1)
    assert together["p99_ns"] >= together["p50_ns"] >= 100e6
    left = json.loads((tmp_path / "out/study-ladder/study.json").read_text())
    assert left["rows"] == told["rows"] and left["system"]
    page = (tmp_path / "out/study-ladder/report.html").read_text()
    assert "elsewhere" in page and "3.7 x, not the 8 x" in page


@pytest.mark.timed
@pytest.mark.slow
def test_the_order_of_planted_rates_is_found_with_its_ratios(tmp_path: Path) -> None:
    # So long that sleeps which end some milliseconds late, as on a busy machine, are within what is asked.
    planted = {"slower": 300.0, "fast": 100.0}
    rungs = FIRST.replace("a_ms: 100", "a_ms: 200")
    rungs += "".join(rung(name, backend_options__a_ms=ms) for name, ms in planted.items())
    rungs += "  - name: tuned\n    like: fast\n    search: {max_batchsize: [2, 4]}\n"

    told = told_by(ladder(rungs, "--rounds", "4", "--seconds", "2", cwd=tmp_path))

    rows = {row["name"]: row for row in told["rows"]}
    rates = {"alone": 5.0, "slower": 1000 / 300, "fast": 10.0, "tuned": 40.0}
    by_rate = sorted(rates, key=rates.__getitem__)
    assert sorted(rows, key=lambda name: float(rows[name]["samples_per_second"])) == by_rate
    for name, rate in rates.items():
        assert rows[name]["samples_per_second"] == pytest.approx(rate, rel=0.05)
    assert rows["tuned"]["found"] == {"max_batchsize": 4}
    for name, before in (("slower", "alone"), ("fast", "slower"), ("tuned", "fast")):
        found = rows[name]["against_before"]
        assert found["ratio"] == pytest.approx(rates[name] / rates[before], rel=0.05)
        assert (rows[name]["before"], found["pairs"]) == (before, 4)
        assert found["verdict"] == ("better" if rates[name] > rates[before] else "worse")
    assert told["words"][0].startswith("tuned has the most throughput")


@pytest.mark.parametrize(
    ("rungs", "fragment"),
    [
        ("", "ladder.yaml: rungs: "),
        (FIRST + FIRST, "two rungs are called 'alone'"),
        (FIRST + rung("b", lane=1), "rung 'b': unknown setting 'lane'"),
    ],
)
def test_a_bad_ladder_is_one_line(rungs: str, fragment: str, tmp_path: Path) -> None:
    child = ladder(rungs, cwd=tmp_path)
    assert (child.code, child.out, len(child.errors)) == (1, "", 1)
    assert fragment in child.err
