"""The page of the studies: what a file says of each claim, at its limit too; none and a broken one say nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import claims, studies
from benchmarks.claims import Claim, Ours
from benchmarks.overhead_sides import ROOT, MeasurementError
from benchmarks.paper import CLAIMS, THESIS
from sut.results.statistics import Difference

Told = Mapping[str, Any]


def ratio(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    verdict = "open" if low is None or high is None or low <= 1 <= high else "better" if low > 1 else "worse"
    return asdict(Difference(value, low, high, 5, verdict, None))  # type: ignore[arg-type]


def rungs(*gains: tuple[float, float, float]) -> dict[str, Any]:
    """A ladder whose rungs have these ratios to the first and, likewise, to the one before."""
    first = {"name": "one-by-one decode", "samples_per_second": 1.0, "against_first": None, "against_before": None}
    rows = [
        {
            "name": f"rung {at}",
            "first": "one-by-one decode",
            "samples_per_second": gain[0],
            "against_first": ratio(*gain),
            "against_before": ratio(*gain),
        }
        for at, gain in enumerate(gains, 2)
    ]
    gpu = {"name": "GPU decode", "against_first": None, "against_before": None, "reason": "no GPU"}
    return {"rows": [first | {"reason": None}, *rows, gpu]}


def models(small: tuple[float, float], large: tuple[float, float], rounds: int = 2) -> dict[str, Any]:
    ranges = {"mobilenet-v2": small, "vit-b": large}
    rows = [
        {
            "model": name,
            "preprocess": "opencv",
            "rounds": rounds,
            "inference_share": sum(ends) / 2,
            "inference_share_range": list(ends),
        }
        for name, ends in ranges.items()
    ]
    return {"against": "opencv", "rows": rows}


def shares(tax: list[float | None], waiting: float = 0.1) -> dict[str, Any]:
    """A breakdown of medium pictures; None: a round of too few samples."""
    by_round = [{at: each and {"tax": each, "waiting": waiting} for at in ("p50", "p99")} for each in tax]
    row = {"pictures": "medium", "preprocess": "opencv", "by_round": by_round}
    return {"rows": [row | {"load": load} for load in ("zero load", "loaded")]}


def parts(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    row = {"pictures": "large", "preprocess": "opencv", "end_to_end_by_inference": ratio(value, low, high)}
    return {"bottleneck": [row]}


def closed(at: float | None, left: dict[str, Any] | None = None, most: int = 4096, full: float | None = None) -> Told:
    outcome = {
        "highest_concurrency": most,
        "decline_concurrency": at,
        "decline": left,
        "memory_full_concurrency": full,
        "declines_with_memory": None if at is None else full is not None and abs(at / full - 1) <= 0.1,
    }
    return {"outcome": outcome}


def claim_of(says: str) -> Claim:
    [found] = [claim for claim in CLAIMS if says in claim.says]
    return found


IN_ALL, EACH, GPU = "All optimisations", "Each optimisation", "Decoding on the GPU"
GROWS, TINY, LOST = "inference's share", "TinyViT", "throughput of large"
MEDIUM, LARGE, WAITING = "medium picture's latency is not inference (here Eff", "a large picture's latency", "Loaded"
DECLINES, MEMORY = "throughput declines", "The decline is memory"


@pytest.mark.parametrize(
    ("says", "content", "verdict", "words"),
    [
        (IN_ALL, rungs((2, 1.9, 2.1), (4, 3.7, 4.4)), "holds", "4 x (3.7 to 4.4): rung 3 against one-by-one decode"),
        (IN_ALL, rungs((3.6, 3.5, 3.69)), "does not hold", "3.6 x (3.5 to 3.69)"),
        (IN_ALL, rungs((3.6, 3.5, 3.71)), "cannot be told", "3.6 x"),
        (IN_ALL, rungs(), "cannot be tested here", "no two rungs run here"),
        (EACH, rungs((2, 1.9, 2.1), (1.1, 1, 1.2)), "holds", "the least of 2: 1.1 x (1 to 1.2), rung 3"),
        (EACH, rungs((2, 0.9, 2.1), (1.1, 1, 1.2)), "cannot be told", "rung 3"),
        (EACH, rungs((0.8, 0.7, 0.9), (1.1, 0.9, 1.2)), "does not hold", "0.8 x (0.7 to 0.9), rung 2"),
        (GPU, rungs((2, 1.9, 2.1)), "cannot be tested here", "no GPU"),
        (GPU, {"rows": []}, "not measured yet", "no figures of GPU decode"),
        (GROWS, models((0.2, 0.3), (0.7, 0.9)), "holds", "mobilenet-v2 25 %, vit-b 80 %"),
        (GROWS, models((0.7, 0.9), (0.2, 0.3)), "does not hold", "mobilenet-v2 80 %"),
        (GROWS, models((0.2, 0.8), (0.7, 0.9)), "cannot be told", "vit-b 80 %"),
        (GROWS, models((0.2, 0.2), (0.9, 0.9), rounds=1), "cannot be told", "one round each"),
        (GROWS, models((0, 0), (0, 0), rounds=0), "not measured yet", "no figures of both models"),
        (TINY, parts(1.2, 1.1, 1.3), "holds", "1.2 x (1.1 to 1.3) of inference alone, opencv"),
        (TINY, parts(0.7, 0.6, 0.8), "does not hold", "0.7 x"),
        (TINY, parts(0.97, 0.9, 1.1), "cannot be told", "0.97 x"),
        (TINY, {"bottleneck": []}, "not measured yet", "no figures of any preprocessor"),
        (LOST, parts(0.15, 0.12, 0.19), "holds", "85 % (81 to 88)"),
        (LOST, parts(0.5, 0.4, 0.6), "does not hold", "50 % (40 to 60)"),
        (LOST, parts(0.2, 0.1, 0.3), "cannot be told", "80 % (70 to 90)"),
        (LOST, parts(0.1, None, None), "cannot be told", "90 %, no interval of so few rounds"),
        (MEDIUM, shares([0.7, 0.71, 0.69, 0.7]), "holds", "70 %"),
        (MEDIUM, shares([0.3, 0.31, 0.29, 0.3]), "does not hold", "30 %"),
        (MEDIUM, shares([0.4, 0.7, 0.5, 0.65]), "cannot be told", "54.9 %"),
        (MEDIUM, shares([0.7, 0.7, 0.7]), "cannot be told", "70 %, no interval of so few rounds"),
        (MEDIUM, shares([None, None]), "not measured yet", "no round has a figure for it"),
        (WAITING, shares([0.7] * 4, waiting=0.6), "holds", "60 % (60 to 60)"),
        (WAITING, shares([0.7] * 4, waiting=0.4), "does not hold", "40 %"),
        (DECLINES, closed(None), "does not hold", "no decline up to 4,096 outstanding"),
        (DECLINES, closed(None, most=512), "cannot be told", "no decline up to 512 outstanding"),
        (DECLINES, closed(900, ratio(0.8, 0.7, 0.9)), "holds", "20 % (10 to 30) less, from 900 outstanding on"),
        (DECLINES, closed(900, ratio(0.93, 0.8, 1.05)), "cannot be told", "7 %"),
        (DECLINES, {"outcome": {}}, "not measured yet", "no point of the closed loop counts"),
        (MEMORY, closed(None), "cannot be tested here", "nothing to explain"),
        (MEMORY, closed(900, ratio(0.93, 0.8, 1.05), full=900), "cannot be tested here", "nothing to explain"),
        (MEMORY, closed(900, ratio(0.8, 0.7, 0.9), full=950), "holds", "memory is full at 950 outstanding"),
        (MEMORY, closed(900, ratio(0.8, 0.7, 0.9)), "does not hold", "memory was never full"),
    ],
)
def test_what_a_file_says_of_a_claim(says: str, content: Told, verdict: str, words: str, tmp_path: Path) -> None:
    claim = claim_of(says)
    leave(tmp_path, claim.study, json.dumps(content))

    found, told = studies.judged(claim, tmp_path)
    assert found == verdict and words in told, (found, told)


def leave(output: Path, name: str, text: str) -> None:
    path = output / name / "somewhere" / studies.STUDIES[name].file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def test_a_claim_of_a_size_that_was_not_measured_says_so(tmp_path: Path) -> None:
    large = next(claim for claim in CLAIMS if LARGE in claim.says)
    leave(tmp_path, large.study, json.dumps(shares([0.7])))

    assert studies.judged(large, tmp_path) == ("not measured yet", "no figures of large, opencv, zero load")


JUDGED = [claim for claim in CLAIMS if claim.judge]


@pytest.mark.parametrize("claim", JUDGED, ids=[f"{at}-{claim.study}" for at, claim in enumerate(JUDGED)])
@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"rows": 1, "bottleneck": 2, "outcome": 3, "against": 4}']
)
def test_without_a_file_and_with_a_broken_one_nothing_is_measured(
    claim: Claim, text: str | None, tmp_path: Path
) -> None:
    if text is not None:
        leave(tmp_path, claim.study, text)

    verdict, why = studies.judged(claim, tmp_path)
    assert verdict == "not measured yet" and (why == "-") is (text is None)


def test_a_limit_is_met_at_itself() -> None:
    assert claims.at_least(2, Difference(2.1, 2, 2.2, 5, "better", None)).holds is True
    assert claims.at_least(2, Difference(1.9, 1.8, 2, 5, "better", None)).holds is None
    assert claims.at_least(2, Difference(3, None, None, 2, "open", None)) == Ours(
        None, "3 x, no interval of so few rounds"
    )


def test_every_claim_has_a_study_of_under_ten_minutes_or_what_it_needs() -> None:
    assert all(study.minutes < 10 for study in studies.STUDIES.values())
    for claim in (*CLAIMS, *THESIS):
        assert (claim.study in studies.STUDIES) if claim.judge else (claim.needs and not claim.study)
        script = claim.command.split()[1:2] if claim.command.startswith("python ") else []
        assert all((ROOT / each).exists() for each in script)


def test_the_page_is_led_by_how_many_hold(tmp_path: Path) -> None:
    leave(tmp_path, "sweep", json.dumps(closed(None)))
    leave(
        tmp_path,
        "compare",
        json.dumps({"sentence": "use this", "rows": [], "system": {"cpu": "A", "cores": 2, "utc": "2026-01-02T03"}}),
    )
    lines = studies.page(tmp_path)

    untestable = sum(claim.judge is None for claim in (*CLAIMS, *THESIS)) + 1
    left = len(CLAIMS) + len(THESIS) - untestable - 1
    assert lines[0] == (
        f"**Measured here: 0 hold, 1 do not, {untestable} cannot be tested**; {left} are not measured yet."
    )
    assert any("| does not hold | no decline up to 4,096 outstanding |" in line for line in lines)
    assert any(line.endswith("| A, 2 cores, 2026-01-02: use this |") for line in lines)
    assert any(line.startswith("| sweep |") and "not measured: " in line for line in lines)  # it is no whole study.json
    assert {line.count("|") for line in lines if line.startswith("| ")} == {4, 7}


def test_the_page_in_the_tree_has_every_claim() -> None:
    text = studies.PAGE.read_text(encoding="utf-8")

    assert text.split("\n\n")[2].startswith("**Measured here: ")
    assert [claim.says for claim in (*CLAIMS, *THESIS) if claim.says not in text] == []


def a_product(monkeypatch: pytest.MonkeyPatch, code: int, leaves: bool = True) -> list[list[str]]:
    """Has the product end with ``code``; returns the commands that it is given."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command)
        if leaves:
            folder = Path(command[command.index("--output") + 1]) / "deep"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "study.json").write_text("{}", encoding="utf-8")
        return subprocess.CompletedProcess(command, code, "", "error: no\n")

    monkeypatch.setattr(studies, "run_command", run)
    return asked


@pytest.mark.parametrize("code", [0, 3, 4])
def test_a_study_that_is_there_is_not_run_again(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = a_product(monkeypatch, code)

    for overwrite in (False, False, True):
        studies.measure("cores", tmp_path, overwrite=overwrite)
    assert len(asked) == 2 and asked[0][-3:-1] == ["5m", "--output"]
    assert studies.file_of("cores", tmp_path) == tmp_path / "cores" / "deep" / "study.json"
    assert not (tmp_path / "cores.part").exists()


@pytest.mark.parametrize(("code", "leaves"), [(1, True), (2, False), (130, True), (0, False)])
def test_a_study_that_was_cut_off_is_not_done(
    code: int, leaves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_product(monkeypatch, code, leaves)

    with pytest.raises(MeasurementError, match="cores: error: no"):
        studies.measure("cores", tmp_path)
    assert studies.file_of("cores", tmp_path) is None


def test_what_was_left_by_one_that_was_cut_off_is_not_taken_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path, "cores", "{}")
    (tmp_path / "cores").rename(tmp_path / "cores.part")
    a_product(monkeypatch, 3, leaves=False)

    with pytest.raises(MeasurementError, match="cores: error: no"):
        studies.measure("cores", tmp_path)


def test_the_command_goes_on_after_a_study_that_failed_and_makes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_product(monkeypatch, 2, leaves=False)
    page = tmp_path / "studies.md"
    page.write_text("# A page\n\n<!-- studies:begin -->\n<!-- studies:end -->\n\nkept\n", encoding="utf-8")
    monkeypatch.setattr(studies, "PAGE", page)

    code = studies.main(["--output", str(tmp_path), "--only", "cores,tinyvit", "--write-docs"])
    captured = capsys.readouterr()
    assert code == 3 and captured.err.count("error: ") == 4  # the product's own line has one, too
    assert captured.out.startswith("**Measured here: ")
    text = page.read_text(encoding="utf-8")
    assert "# A page" in text and "**Measured here: 0 hold" in text and text.endswith("\n\nkept\n")


def test_an_unknown_study_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        studies.main(["--only", "ladder,nothing"])
    assert ended.value.code == 1 and "unknown study 'nothing'" in capsys.readouterr().err


def test_what_was_interrupted_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "measure", interrupted)

    assert studies.main(["--output", str(tmp_path), "--only", "cores,tinyvit"]) == 130
    captured = capsys.readouterr()
    assert captured.err == "cores was cut off; the same command goes on with it\n" and not captured.out
