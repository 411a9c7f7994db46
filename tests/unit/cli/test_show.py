"""The table of results: what fits into a terminal, names that are more than names, and what is said of the rest."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from sut.cli.commands.show import show
from sut.config import make_config
from sut.errors import InputError
from sut.results.columns import ShownColumn, fitting
from sut.results.quiet import Quiet
from sut.results.schema import Agreement, Metric, Parity, Result
from sut.results.wording import ESTIMATE
from tests.unit.results.test_collected import put
from tests.unit.results.test_results import a_result

PARITY = Parity(max_levels=1, mean_levels=0.1, share_over_1=0.0, psnr_db=50.0, pictures=3)
AGREEMENT = Agreement(value=0.974, low=0.962, high=0.982, count=1000, source="", words="")


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def of(settings: dict[str, Any] | None = None, **changes: Any) -> Result:
    config = make_config({"backend": "null", "scenario": "Server", **(settings or {})}).model_dump(mode="json")
    return a_result(config=config, **changes)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_what_differs_is_a_column_and_what_is_the_same_stands_once_above(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lanes in (1, 2):
        metric = Metric(name="completed_samples_per_second", value=100.0 * lanes, higher_is_better=True)
        put(tmp_path / str(lanes), of({"lanes": lanes, "time_s": 3}, metric=metric, notes=["a", "b"]))

    show([tmp_path])

    printed = lines(capsys)
    table = next(number for number, line in enumerate(printed) if line.startswith("lanes"))
    assert " ".join(printed[:table]).startswith(
        "all: model resnet50, weights random, backend null, backend_version none, device cpu, preprocess opencv, "
        "precision fp32, boundary tensor, scenario Server, mode performance, time_s 3"
    )
    assert printed[table].split() == ["lanes", "result", "figure", "ms", "ms", "samples/s", "notes"]
    assert [row.split() for row in printed[table + 1 :]] == [
        ["2", "VALID", "200", "samples/s", "1", "4", "12", "2"],
        ["1", "VALID", "100", "samples/s", "1", "4", "12", "2"],
    ]


def test_a_reduced_precision_and_timed_pictures_are_not_shown_without_what_they_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a", of({"precision": "int8"}, precision="int8", agreement=AGREEMENT))
    put(tmp_path / "b", of({"boundary": "jpeg"}, boundary="jpeg", parity=PARITY))
    put(tmp_path / "c", of(parity=PARITY))
    put(tmp_path / "d", of({"precision": "bf16", "agreement": 0}, precision="bf16"))

    show([tmp_path])

    printed = lines(capsys)
    heading = next(line for line in printed if line.startswith("precision"))
    rows = {tuple(line.split()[:2]): line for line in printed[printed.index(heading) + 1 :]}
    at_parity, at_labels = (heading.index(name) + len(name) for name in ("parity", "labels"))

    def cells(precision: str, boundary: str) -> list[str]:
        row = rows[precision, boundary]
        return [row[:at_parity].split()[-1], " ".join(row[at_parity:at_labels].split())]

    assert cells("int8", "tensor") == ["-", "97.4 %"]
    assert cells("bf16", "tensor") == ["-", "unknown"]
    assert cells("fp32", "jpeg") == ["1", "-"]
    assert cells("fp32", "tensor") == ["-", "-"]


def test_an_estimate_of_a_percentile_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimate = Metric(name="early_stopping_p90_latency_ns", value=3e6, higher_is_better=False)
    single = of({"scenario": "SingleStream"}, scenario="SingleStream", metric=estimate)
    put(tmp_path / "a", single)

    show([tmp_path])

    printed = lines(capsys)
    assert any("3 ms p90*" in line for line in printed)
    assert ESTIMATE in printed


def many(width: int) -> list[ShownColumn]:
    """Columns of ten places each, most of which a terminal of ``width`` cannot have."""
    settings = ["model", "backend", "device", "scenario", "lanes", "threads"]
    figures = ["result", "figure", "p50 ms", "p99 ms", "samples/s", "accuracy", "parity", "same labels", "notes"]
    return [ShownColumn(name, ["x" * width], name in settings) for name in [*settings, *figures]]


def test_boundaries_stay_apart_however_narrow_the_terminal_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for number, boundary in enumerate(("jpeg", "tensor", "jpeg", "tensor")):
        rate = Metric(name="completed_samples_per_second", value=100.0 * (4 - number), higher_is_better=True)
        asked = {"boundary": boundary, "precision": ("fp32", "int8")[number // 2]}
        put(tmp_path / str(number), of(asked, **asked, metric=rate, parity=PARITY, agreement=AGREEMENT))

    show([tmp_path])

    told = [word for line in lines(capsys) for word in line.split() if word in ("jpeg", "tensor")]
    assert told == ["jpeg", "tensor"]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_the_least_telling_columns_go_first_and_are_named(width: int) -> None:
    columns = many(10)

    kept, without = fitting(columns, width)

    assert (
        without == ["samples/s", "accuracy", "p50 ms", "notes", "p99 ms", "threads", "lanes", "device"][: len(without)]
    )
    assert [column.name for column in columns if column.name not in without] == [column.name for column in kept]
    assert {"model", "backend", "scenario", "result", "figure", "parity", "same labels"} <= {each.name for each in kept}
    if width >= 12 * 7:
        assert sum(column.width + 2 for column in kept) - 2 <= width


def test_everything_that_differs_at_once_is_readable_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, scenario in enumerate(("Server", "Offline")):
        name = ("completed_samples_per_second", "samples_per_second")[number]
        value = Metric(name=name, value=12345.6, higher_is_better=True)
        changes = {
            "model": f"a-model-with-a-long-name-{number}", "weights": ("random", "trained")[number],
            "backend": ("onnxruntime", "openvino")[number], "preprocess": ("dali-resize", "opencv")[number],
            "precision": ("int8", "fp32")[number], "boundary": ("jpeg", "tensor")[number], "scenario": scenario,
        }  # fmt: skip
        asked = {name: changes[name] for name in ("backend", "preprocess", "precision", "boundary", "scenario")}
        put(tmp_path / scenario, of(asked, **changes, metric=value, parity=PARITY, agreement=AGREEMENT))

    show([tmp_path])

    printed = lines(capsys)
    assert max(map(len, printed)) <= 80
    assert "a-model-with-a-long-name-0, random, jpeg, Server" in printed
    assert any(line.split()[:4] == ["openvino", "opencv", "fp32", "VALID"] for line in printed)
    assert any(line.startswith("left out for want of room: samples/s, ") for line in printed)


@pytest.mark.parametrize("model", ["[red]m[/red]", "[/]", "<b>&amp;", "caf\\udce9\\x1b[2J", "x" * 200])
def test_a_name_is_only_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    path = put(tmp_path / "a", of(model="other"))
    path.write_text(path.read_text().replace('"other"', json.dumps(model)))
    put(tmp_path / "b", of(model="another"))

    show([tmp_path])

    printed = capsys.readouterr().out
    assert "".join(model.split()) in "".join(printed.split()) or "x" * 24 in printed
    assert printed.replace("\n", "").isprintable()


def test_results_that_nothing_else_tells_apart_have_their_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in (1, 2):
        put(tmp_path / str(day), of(started=f"2026-01-0{day}T00:00:00+00:00"))

    show([tmp_path])

    printed = "\n".join(lines(capsys))
    assert "2026-01-01 00:00:00" in printed and "2026-01-02 00:00:00" in printed


def test_what_is_left_out_is_named_once_each_and_many_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "sound")
    put(tmp_path / "sound.20260101T000000")
    for number in range(13):
        put(tmp_path / f"half-{number:02}").write_text("{")

    show([tmp_path])

    told = capsys.readouterr().err.splitlines()
    assert [line.partition("half-")[2][:2] for line in told[:10]] == [f"{number:02}" for number in range(10)]
    assert all(": no whole JSON file: EOF" in line for line in told[:10])
    assert told[10:] == [
        "left out: 3 more",
        "left out: 1 folder of earlier results; --all shows them too",
    ]


@pytest.mark.parametrize(("share", "cell"), [(0.5, "busy, 1"), (0.0, "1"), (None, "1")])
def test_a_run_on_a_busy_machine_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float | None, cell: str
) -> None:
    put(tmp_path, of(quiet=Quiet(others_share=share, own_wait_share=0.0, steal_share=0.0), notes=["a"]))

    show([tmp_path])

    assert lines(capsys)[-1].endswith(f" {cell}")


def test_results_of_several_machines_are_not_compared_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cores in (1, 2):
        put(tmp_path / str(cores), of(system={"cpu": "EPYC", "cores": cores}))

    show([tmp_path])

    said = "results of several machines, whose figures cannot be compared: usable cores: 1 and 2"
    assert said in capsys.readouterr().err


def test_without_a_folder_it_is_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "output", of(model="usual"))
    put(tmp_path / "named", of(model="named"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTPUT_DIR", raising=False)

    show()
    usual = capsys.readouterr().out
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path / "named"))
    show()

    assert "model usual" in usual
    assert "model named" in capsys.readouterr().out


@pytest.mark.parametrize("made", [True, False])
def test_nothing_to_show_is_an_error_in_one_line(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "[b]none"
    if made:
        folder.mkdir()

    with pytest.raises(InputError, match=r"^no results in .*\[b\]none; name a folder in which sut run has left some$"):
        show([folder])


def test_csv_has_a_line_per_result_and_json_its_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [of(model="a", notes=['quoted "words", and\na line']), of(model="b", agreement=AGREEMENT)]
    paths = [put(tmp_path / result.model, result) for result in results]

    show([tmp_path], as_csv=True)
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    show([tmp_path], as_json=True)
    report = json.loads(capsys.readouterr().out)

    assert [(row["path"], row["model"], row["latency_ns.p99"]) for row in table] == [
        (str(path), model, "4000000") for path, model in zip(paths, "ab", strict=True)
    ]
    assert (table[0]["notes"], table[0]["agreement.value"]) == ('quoted "words", and\na line', "")
    assert (report["schema"], report["command"]) == (1, "show")
    wholes = [{name: value for name, value in row.items() if name not in ("path", "source")} for row in report["rows"]]
    assert [Result.model_validate(whole) for whole in wholes] == results


def test_two_forms_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--csv and --json"):
        show([tmp_path], as_csv=True, as_json=True)
