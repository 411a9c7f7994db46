"""The benchmarks' pure parts: verdicts at their limits, tables, sections that keep the rest, what is planted."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from benchmarks import instructions, plan
from benchmarks.bare import FIGURES
from benchmarks.document import Figure, Target, best, compared, figures_table, replace_section, short, spread
from benchmarks.overhead_sides import ROOT, MeasurementError, check_same_settings
from benchmarks.reference import FAULTS, SCENARIOS, Harnesses, shortened, speed
from benchmarks.reference_plant import STRIKES
from benchmarks.whatif import Repeat, world_of
from sut.config import RunConfig, read_config_file
from sut.results.statistics import Difference
from sut.studies.comparing.matrix import cells_of, count_of, from_file


@pytest.mark.parametrize(
    ("bound", "limit", "value", "met"),
    [
        ("at least", 0.97, 0.97, True),
        ("at least", 0.97, math.nextafter(0.97, 0), False),
        ("at most", 0.97, 0.97, True),
        ("at most", 0.97, math.nextafter(0.97, 1), False),
        ("below", 0.97, math.nextafter(0.97, 0), True),
        ("below", 0.97, 0.97, False),
        ("within", 0.25, 0.75, True),
        ("within", 0.25, 1.25, True),
        ("within", 0.25, 1.26, False),
        ("within", 0.25, 0.74, False),
        ("within", 0.25, math.nan, False),
    ],
)
def test_a_target_at_its_limit(bound, limit, value, met):
    assert Target("ratio", bound, limit).met_by(value) is met


@pytest.mark.parametrize(
    ("of", "ours", "bare", "values"),
    [
        ("ratio", [1.0, 9.0], [4.0, 3.0], [0.25, 3.0]),
        ("difference", [3.0, 1.0], [1.5, 2.0], [1.5, -1.0]),
        ("value", [5.0], [], [5.0]),
    ],
)
def test_a_figure_is_told_pair_by_pair(of, ours, bare, values):
    assert Figure("title", "ms", Target(of, "at most", 1), ours, bare).values == values


def test_the_median_of_the_pairs_is_what_must_meet_the_target():
    figure = Figure("title", "ms", Target("ratio", "at most", 2), [4.0, 2.0, 30.0], [4.0, 1.0, 2.0])

    assert figure.row() == ("title", "4 (2 to 30) ms", "2 (1 to 4) ms", "2 (1 to 15)", "at most 2", "met")


def test_what_failed_meets_nothing():
    figure = Figure("title", "ms", Target("value", "below", 2), [1.0], error="no network")

    assert figure.met is None
    assert figures_table([figure])[-1] == "| title | 1 ms | - | - | below 2 ms | not measured: no network |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.00049, "0.0005"), (0.001, "0.001"), (999.94, "999.9"), (1000.0, "1,000"), (-1234.5, "-1,234")],
)
def test_numbers_without_exponents(value, text):
    assert short(value) == text


@pytest.mark.parametrize(("values", "text"), [([], "-"), ([2.0], "2"), ([3.0, 1.0], "2 (1 to 3)")])
def test_the_spread_of_few_values(values, text):
    assert spread(values) == text


ROW = {
    "cell": "lanes=null",
    "model": "lite0",
    "precision": "int8",
    "backend": "openvino",
    "scenario": "Offline",
    "used": {"lanes": 2, "threads": 1, "max_batchsize": 8},
    "metric": {"value": 1234.5, "higher_is_better": True},
    "cpu_seconds_per_sample": 0.0025,
    "ratio": None,
    "agreement": {"value": 0.987},
    "accuracy": {"value": 0.8, "count": 5},
    "reason": None,
}
SYSTEM = {"cpu": "a CPU", "cores": 2, "utc": "2026-01-02T03:04:05Z"}


def ratio(value: float, low: float | None, high: float | None, pairs: int) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high, "pairs": pairs}


def test_what_compare_found_is_a_table():
    latency = {"metric": {"value": 2.5e6, "higher_is_better": False}, "used": {}, "cpu_seconds_per_sample": None}
    other = ROW | latency | {"cell": "a|b", "ratio": ratio(0.9, None, None, 1), "agreement": None, "accuracy": None}
    absent = {"cell": "d", "reason": "it is not installed"}

    lines = compared({"sentence": "use a", "rows": [ROW, other, absent], "system": SYSTEM})

    assert lines[:3] == ["lite0, a CPU, 2 cores, 2026-01-02:", "", "> use a"]
    assert lines[-4:-1] == [
        "| lanes=null | 2, 1, 8 | 1,234/s | - | 2.5 | 98.7 % | 4 of 5 |",
        "| a/b | -, -, - | 2.5 ms | 0.90 x, 1 pairs | - | - | - |",
        "| d | it is not installed | - | - | - | - | - |",
    ]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (ratio(1.25, 1.0, 2.0, 7), "0.80 x (0.50 to 1.00), 7 pairs | at least 0.95 | NOT MET"),
        (ratio(0.6, 0.55, 0.65, 7), "1.67 x (1.54 to 1.82), 7 pairs | at least 0.95 | met"),
    ],
)
def test_the_first_cell_is_held_against_the_best_of_the_others(found, told):
    used = ROW["used"] | {"max_batchsize": 16}
    worse = ROW | {"cell": "lanes=1", "used": used, "ratio": ratio(0.5, 0.4, 0.6, 7)}
    rival = ROW | {
        "cell": "lanes=2",
        "used": used,
        "ratio": found,
        "metric": {"value": 1500.0, "higher_is_better": True},
    }
    absent = {"cell": "d", "reason": "it is not installed"}
    luck = ROW | {"cell": "lanes=3", "used": used, "ratio": ratio(0.7, None, None, 1)}
    same = ROW | {"cell": "lanes=4", "ratio": ratio(2.0, 1.5, 2.5, 9)}

    lines = best([{"rows": [ROW, worse, rival, luck, same, absent], "system": SYSTEM}])

    assert lines[2] == f"| lite0 int8 on openvino, Offline | 1,234/s (2, 1, 8) | 1,500/s (2, 1, 16) | {told} |"


def test_a_section_is_added_then_replaced_and_the_rest_kept():
    once = replace_section("# Performance\n\nWords.\n", "bare", "Beside", "old")
    twice = replace_section(once + "\nMore words.\n", "bare", "Beside", "new")

    assert once.startswith("# Performance\n\nWords.\n\n## Beside\n")
    assert "old" not in twice
    assert twice.count("## Beside") == 1
    assert twice.endswith("\nMore words.\n")


@pytest.mark.parametrize("text", ["<!-- a:end --><!-- a:begin -->", "<!-- a:begin -->", "<!-- a:begin -->" * 2])
def test_markers_that_do_not_fit_are_refused(text):
    with pytest.raises(ValueError, match="not once each and in this order"):
        replace_section(text, "a", "A", "new")


def test_both_sides_must_have_the_same_settings():
    ours = {"effective_min_query_count": 1, "effective_sample_index_rng_seed": 5, "result_mean_latency_ns": 1}

    check_same_settings(ours, {**ours, "result_mean_latency_ns": 2})
    for key in ("effective_min_query_count", "effective_sample_index_rng_seed"):
        with pytest.raises(MeasurementError, match=key):
            check_same_settings(ours, {**ours, key: 7})
        with pytest.raises(MeasurementError, match=key):
            check_same_settings({name: value for name, value in ours.items() if name != key}, ours)


def test_every_fault_strikes_and_in_a_scenario_that_is_run():
    assert {fault.strike for fault in FAULTS} - {""} == set(STRIKES)
    assert {fault.scenario for fault in FAULTS} <= set(SCENARIOS)


def test_a_fault_of_the_pictures_changes_its_own_folder(tmp_path: Path):
    bench = Harnesses(Path("harness"), tmp_path, 1, Path("model.onnx"))
    plain = {path.name: path.stat().st_size for path in bench.folder().iterdir()}

    for fault in FAULTS:
        folder = bench.folder(fault.change)
        found = {path.name: path.stat().st_size for path in folder.iterdir()}
        changed = {name for name, size in plain.items() if found.get(name) != size}
        assert changed == ({"bee.jpg"} if "picture" in fault.name else set())
        assert len((folder / "val_map.txt").read_text(encoding="utf-8").splitlines()) == len(plain) - 1
        shutil.rmtree(folder)


def test_speed_says_how_many_times_as_fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    bench = Harnesses(Path("harness"), tmp_path, 1, Path("model.onnx"))
    figures = {"reference": 40.0, "ours fp32": 20.0, "ours int8": 5.0}
    monkeypatch.setattr(Harnesses, "figure", lambda self, side, scenario: figures[side])

    lines = speed(bench, 3)

    assert lines[2].startswith("| SingleStream p50 | 40 ms | 20 ms | 2.00 x (2.00 to 2.00) | 5 ms | 8.00 x ")
    assert lines[-1].startswith("| Offline rate | 40 samples/s | 20 samples/s | 0.50 x ")


def test_what_a_run_said_fits_into_a_cell(tmp_path: Path):
    assert shortened(f"exit 1: {tmp_path}/photos-x/bee.jpg is cut off", tmp_path) == "exit 1: bee.jpg is cut off"
    assert len(shortened("x" * 1000, tmp_path)) == 110


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_is_a_matrix_whose_first_cell_is_the_default(path: Path):
    content = read_config_file(path)
    axes = from_file(content.pop("matrix"), path)

    cells = cells_of(axes, RunConfig(**content))

    assert len(cells) == count_of(axes) > 1
    assert {cell.config.scenario for cell in cells} <= set(FIGURES)
    if path.stem.startswith("auto"):
        assert set(cells[0].settings.values()) == {None}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--help", "usage: instructions.py [-h] [CHECKOUT ...]"),
        ("/nowhere", "argument CHECKOUT: '/nowhere' is no checkout of this project: it has no folder 'sut'"),
    ],
)
def test_the_count_of_instructions_says_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["instructions.py", word])

    with pytest.raises(SystemExit) as left:
        instructions.main()

    assert left.value.code == (0 if word == "--help" else 2)
    assert said in "".join(capsys.readouterr())


def test_the_same_layouts_are_drawn_of_each_system_and_kept_when_measured(tmp_path: Path):
    rows = [{"lanes": lanes, "max_batchsize": 8, "preprocess_workers": 0} for lanes in range(20)]
    kept, made = plan.Kept(tmp_path / "work"), []

    found = [kept.get("a", lambda figure: made.append(figure) or figure, figure) for figure in (1.5, 2.5)]

    assert (found, made) == ([1.5, 1.5], [1.5])
    assert plan.drawn("a", rows, 5) == plan.drawn("a", rows, 5) != plan.drawn("b", rows, 5)
    assert len({row["lanes"] for row in plan.drawn("a", rows, 5)}) == 5


def test_a_plan_is_judged_by_its_median_error_and_by_its_intervals():
    lines = plan.report({"one": ([(1.05, True), (0.8, False)], 12.0), "two": ([(1.0, True), (0.99, True)], 250.0)})

    assert lines[2] == "| Error of 4 expected rates | 3 (0 to 20) % | - | 3 (0 to 20) % | at most 10 % | met |"
    assert lines[3] == "| Rates within the 90 % interval | 75 % | - | 75 % | at least 90 % | NOT MET |"
    assert lines[-1] == "| two | 0.995 (0.990 to 1.000) | 2 of 2 | 250 ms |"


def test_a_gain_is_foretold_from_what_the_other_preprocessor_takes():
    opencv = [{"decode": 100, "resize": 30, "normalize": 10, "infer": 50}] * 3
    fused = [{"decode": 80, "preprocess": took, "infer": 50} for took in (9, 10, 30)]

    world = world_of(opencv, fused)

    assert dict(world.shares) == {"decode": 0.8, "resize": 0.25, "normalize": 0.25}
    assert world.slowdown(["decode", "resize", "infer"]) == {"decode": 3.2, "infer": 4.0}


@pytest.mark.parametrize(("came", "is_right"), [(1.05, True), (1.2, True), (1.04, False), (None, False)])
def test_a_repeat_is_right_where_the_interval_holds_what_came(came, is_right):
    foretold = Difference(1.1, 1.05, 1.2, 6, "better", None)
    world = world_of([{"decode": 2, "resize": 1, "normalize": 1}], [{"decode": 1, "preprocess": 1}])
    found = Repeat(world, foretold, Difference(came, None, None, 6, "open", None))

    assert found.is_right is is_right
    assert found.row(3)[:4] == ["3", "50 %", "50 %", "1.100 x (1.050 to 1.200)"]
