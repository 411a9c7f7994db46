"""The page of results as a browser shows it: no script error, charts that are drawn, nothing too wide, true figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sut.results.collected import Found, Skipped
from sut.results.page.page import write_page
from sut.results.schema import Result
from sut.studies.comparing.page import read_comparison
from tests.integration.browser import Seen, look_at
from tests.unit.report_results import EVIL, a_comparison, a_result

SCALES = {"ms": 1e-6, "ms of s": 1e3, "%": 100.0, "MB": 1e-6, "": 1.0}


def page_of(folder: Path, results: list[Result], comparison: Mapping[str, Any] | None = None, **more: Any) -> Path:
    comparisons = []
    if comparison is not None:
        (folder / "compare.json").write_text(json.dumps(comparison))
        comparisons = [read_comparison(folder / "compare.json", 0)]
    page = folder / "report.html"
    write_page(page, [Found(Path("result.json"), each) for each in results], comparisons, **more)
    return page


def found_in(content: Any, steps: list[str]) -> Any:
    for step in steps:
        content = content[int(step)] if isinstance(content, list) else content[step]
    return content


def check_figures(seen: Seen, files: Mapping[str, Any], at_least: int) -> None:
    """Every figure that names its place is the file's, and its text is its value in its unit."""
    told = [(of, value, unit, text) for of, value, unit, text in seen.figures if of]
    assert len(told) >= at_least
    for of, value, unit, text in told:
        file, _, place = of.partition(":")
        assert json.loads(value) == found_in(files[file], place.split(".")), of
        shown, true = float(text.replace(",", "")), json.loads(value) * SCALES[unit]
        assert shown == pytest.approx(true, rel=6e-4), of
    for _, value, unit, text in seen.figures:
        assert float(text.replace(",", "")) == pytest.approx(json.loads(value) * SCALES[unit], rel=6e-3)


def check_sound(seen: Seen, charts: int) -> None:
    assert seen.errors == []
    assert seen.wide == [] and seen.pale == []
    assert len(seen.charts) == charts
    for chart in seen.charts:
        assert all(chart["named"])
        assert any(width > 0 and height > 0 for width, height in chart["boxes"]), chart["named"]
        assert min(chart["size"]) > 20


SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1200, True)])
def test_the_page_of_a_demo(tmp_path: Path, width: int, dark: bool) -> None:
    results = [a_result(scenario=name, boundary="jpeg") for name in SCENARIOS]
    results.append(a_result(mode="accuracy", scenario="Offline", metric=None, valid=None, accuracy=ELEVEN))

    seen = look_at(page_of(tmp_path, results), tmp_path, width, dark)

    assert seen.width == width
    assert seen.page < 0.05 if dark else seen.page > 0.9
    check_sound(seen, charts=2 + 2 + 2 + 1 + 2 * 4)
    check_figures(seen, {str(i): json.loads(each.to_json()) for i, each in enumerate(results)}, at_least=200)
    assert (seen.images, seen.scripts) == (0, 2)
    assert "Not official" in seen.text


ELEVEN = {"name": "top1", "value": 10 / 11, "count": 11}


# 970: nearly the narrowest with tables that are tables.
@pytest.mark.parametrize("width", [360, 970])
def test_a_comparison_and_many_configurations(tmp_path: Path, width: int) -> None:
    results = [a_result(backend=name, rate=rate) for name, rate in (("one", 90.0), ("two", 250.0), ("three", 120.0))]
    compared = a_comparison()

    seen = look_at(page_of(tmp_path, results, compared), tmp_path, width)

    check_sound(seen, charts=2 + 2 * 2 + 2 * 3)
    assert seen.text.index(compared["sentence"]) < seen.text.index("Before you believe")
    files = {str(i): json.loads(each.to_json()) for i, each in enumerate(results)} | {"c0": compared}
    check_figures(seen, files, at_least=60)
    assert any(of.startswith("c0:rows.1.ratio") for of, *_ in seen.figures)
    # Each heading was pressed twice, the last one in vain: "if it were free" is unknown in all.
    assert sorted(seen.rows[1]) == ["one", "three", "two"]


def test_names_with_markup_are_words(tmp_path: Path) -> None:
    results = [
        a_result(
            model=evil,
            backend=evil,
            preprocess=evil,
            notes=[evil],
            invalid_reasons=[evil],
            valid=False,
            first_error=evil,
            rules_broken=[evil],
            config={"dataset": evil, "lanes": evil},
            stages_ns={evil: {"mean": 5, "p50": 5, "p99": 9, "middle": 5, "tail": 9}},
            system={"cpu": evil},
            batch_sizes={evil: 3},
            metric={"name": f"{evil}_ns", "value": 5e6, "higher_is_better": False},
            accuracy={"name": evil, "value": 0.5, "count": 2} if evil == EVIL[0] else None,
        )
        for evil in EVIL
    ]
    compared = a_comparison()
    for row in compared["rows"][:2]:
        row["against"] = compared["rows"][0]["cell"] = compared["rows"][0]["reason"] = EVIL[0]
    compared["sentence"] = compared["sentence"].replace("onnxruntime fp32", EVIL[0])
    skipped = [Skipped(Path(evil.replace("/", "")), evil) for evil in EVIL]

    seen = look_at(page_of(tmp_path, results, compared, skipped=skipped), tmp_path)

    assert seen.errors == []
    assert (seen.images, seen.scripts) == (0, 2)
    assert seen.wide == []
    assert all(evil in seen.text for evil in EVIL[:3])
    assert "\\u202e" in seen.text and "\u202e" not in seen.text
