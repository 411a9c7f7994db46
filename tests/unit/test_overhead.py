import math

import pytest

from benchmarks.overhead_report import (
    BEGIN,
    COLUMNS,
    END,
    INTRODUCTION,
    Figure,
    Target,
    markdown,
    ratio,
    replace_section,
    short,
    spread,
)
from benchmarks.overhead_sides import MeasurementError, check_same_settings

FACTS = {"utc": "2026-01-02T03:04:05Z", "cpu": "a CPU", "cores": 2}


def figure(target: Target, ours: list[float], bare: list[float], error: str | None = None) -> Figure:
    return Figure("name", "Title", "ms", target, "how.", ours, bare, error=error)


@pytest.mark.parametrize(
    ("bound", "value", "met"),
    [
        ("at least", 0.97, True),
        ("at least", math.nextafter(0.97, 0), False),
        ("at most", 0.97, True),
        ("at most", math.nextafter(0.97, 1), False),
        ("below", math.nextafter(0.97, 0), True),
        ("below", 0.97, False),
    ],
)
def test_a_target_at_its_limit(bound, value, met):
    assert Target("ratio", bound, 0.97).met_by(value) is met


@pytest.mark.parametrize("value", [math.nan])
def test_a_figure_that_is_no_number_meets_nothing(value):
    assert not any(Target("value", bound, 1).met_by(value) for bound in ("at least", "at most", "below"))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Target("ratio", "at least", 0.97), "ratio at least 0.97"),
        (Target("difference", "at most", 0.3), "difference at most 0.3 ms"),
        (Target("value", "below", 2), "below 2 ms"),
    ],
)
def test_a_target_in_words(target, text):
    assert target.text("ms") == text


@pytest.mark.parametrize(
    ("of", "ours", "bare", "value"),
    [
        ("ratio", [1.0, 9.0, 2.0], [4.0], 0.5),
        ("ratio", [1.0, 3.0], [4.0, 4.0, 400.0], 0.5),
        ("difference", [3.0, 1.0], [1.5], 0.5),
        ("value", [5.0], [], 5.0),
    ],
)
def test_a_figure_compares_the_medians(of, ours, bare, value):
    assert figure(Target(of, "at most", 1), ours, bare).value == value


@pytest.mark.parametrize(
    ("of", "ours", "bare", "error"),
    [
        ("ratio", [], [], None),
        ("ratio", [1.0], [], None),
        ("difference", [1.0], [], None),
        ("value", [], [], None),
        ("ratio", [1.0], [1.0], "the second one failed"),
    ],
)
def test_half_a_figure_is_no_verdict(of, ours, bare, error):
    found = figure(Target(of, "at most", 1), ours, bare, error)

    assert found.value is None
    assert found.met is None
    assert found.row()[-1] == "not measured"
    assert found.as_json()["met"] is None


@pytest.mark.parametrize(("ours", "verdict"), [(2.0, "met"), (2.1, "NOT MET")])
def test_the_verdict_in_the_table(ours, verdict):
    row = figure(Target("ratio", "at most", 1), [ours], [2.0]).row()

    assert len(row) == len(COLUMNS)
    assert row[-1] == verdict


def test_a_ratio_needs_something_to_divide_by():
    assert ratio(0.0, 2.0) == 0.0
    for bare in (0.0, -1.0):
        with pytest.raises(ValueError, match="positive"):
            ratio(1.0, bare)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.00049, "0.0005"), (0.001, "0.001"), (999.94, "999.9"), (1000.0, "1,000"), (-1234.5, "-1,234")],
)
def test_numbers_without_exponents(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("values", "text"), [([], "-"), ([2.0], "2"), ([3.0, 1.0], "2 (1 to 3)"), ([5.0, 1.0, 2.0], "2 (1 to 5)")]
)
def test_the_spread_of_few_values(values, text):
    assert spread(values) == text


def test_the_section_is_replaced_and_nothing_else():
    text = f"before\r\n{BEGIN}old\n\nolder{END} after  \n"

    once = replace_section(text, "\nnew | table\n")

    assert once == f"before\r\n{BEGIN}\n\nnew | table\n\n{END} after  \n"
    assert replace_section(once, "new | table") == once


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "0 times '<!-- overhead:begin"),
        (f"{BEGIN}", "0 times '<!-- overhead:end"),
        (f"{BEGIN}{BEGIN}{END}", "2 times"),
        (f"{BEGIN}{END}{END}", "2 times"),
        (f"{END}{BEGIN}", "swap them"),
    ],
)
def test_markers_that_do_not_fit_are_refused(text, fragment):
    with pytest.raises(ValueError, match=fragment):
        replace_section(text, "new")


def test_a_new_document_takes_the_table():
    figures = [
        figure(Target("ratio", "at least", 0.97), [1.0], [1.0]),
        figure(Target("value", "below", 2), [], [], "no network"),
    ]

    text = replace_section(INTRODUCTION, markdown(figures, FACTS, "python benchmarks/overhead.py"))

    assert "| Title | 1 ms | 1 ms | 1 | ratio at least 0.97 | met |" in text
    assert "| Title | - | - | - | below 2 ms | not measured |" in text
    assert "Not measured: no network." in text
    assert "- cpu: a CPU" in text


def test_a_cell_cannot_break_the_table():
    found = figure(Target("ratio", "at least", 0.97), [1.0], [1.0])
    found.title = "a | b"

    assert r"| a \| b |" in markdown([found], FACTS, "command")


def test_both_sides_must_have_the_same_settings():
    ours = {"effective_min_query_count": 1, "effective_sample_index_rng_seed": 5, "result_mean_latency_ns": 1}

    check_same_settings(ours, {**ours, "result_mean_latency_ns": 2})
    for key in ("effective_min_query_count", "effective_sample_index_rng_seed"):
        with pytest.raises(MeasurementError, match=key):
            check_same_settings(ours, {**ours, key: 7})
        with pytest.raises(MeasurementError, match=key):
            check_same_settings({name: value for name, value in ours.items() if name != key}, ours)
