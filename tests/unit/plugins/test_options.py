"""A plug-in's options from one class: what is refused and how, what is shown, what is searched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import pytest

from plugins.base import Plugin
from plugins.options import NoOptions, PluginOption, Tuned, describe, option, read, shortcuts, tuned


@dataclass(frozen=True)
class Options:
    """As another package would write it: a plain field is an option too."""

    lanes: int = option(2, "lanes of the runtime", least=1, most=8, tune=Tuned(lambda lanes: lanes // 2))
    wait_ms: float = option(0.5, "how long it waits", least=0, unit="milliseconds")
    share: float | Literal["auto"] = option("auto", "share of the cores", least=0, most=1)
    rows: int | None = option(None, "rows at a time")
    fast: bool = False
    where: str = option("here", "a place")
    kind: Literal["Plain", "Odd"] = "Plain"


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("lanes", 8, 8),
        ("lanes", "3", 3),
        ("wait_ms", 7, 7.0),
        ("share", 0.25, 0.25),
        ("share", "AUTO", "auto"),
        ("rows", -4, -4),
        ("fast", True, True),
        ("fast", False, False),
        ("where", "there", "there"),
        ("kind", "odd", "Odd"),
    ],
)
def test_a_value_is_taken_as_the_field_has_it(name: str, given: object, taken: object) -> None:
    found = getattr(read("theirs", Options, {name: given}), name)

    assert (found, type(found)) == (taken, type(taken))


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("lanes", 0, "lanes: got 0, expected a whole number from 1 to 8"),
        ("lanes", 9, "lanes: got 9, expected a whole number from 1 to 8"),
        ("lanes", 2.0, "lanes: got 2.0, expected a whole number from 1 to 8"),
        ("lanes", True, "lanes: got True, expected a whole number from 1 to 8"),
        ("wait_ms", float("nan"), "wait_ms: got nan, expected milliseconds from 0"),
        ("wait_ms", float("inf"), "wait_ms: got inf, expected milliseconds from 0"),
        ("wait_ms", "soon", "wait_ms: got 'soon', expected milliseconds from 0"),
        ("share", "all", "share: got 'all', expected a number from 0 to 1 or auto"),
        ("rows", "none", "rows: got 'none', expected a whole number"),
        ("fast", 1, "fast: got 1, expected true or false"),
        ("where", 3, "where: got 3, expected a word"),
        ("kind", "strange", "kind: got 'strange', expected Plain or Odd"),
    ],
)
def test_a_value_that_is_none_is_told_in_the_same_words(name: str, given: object, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        read("theirs", Options, {name: given})

    assert str(refused.value) == f"theirs option {said}"


def test_an_unknown_option_is_told_with_the_nearest_and_all_there_are() -> None:
    with pytest.raises(ValueError) as refused:
        read("theirs", Options, {"lane": 1})

    assert str(refused.value) == (
        "theirs has no option 'lane'; did you mean lanes? known: lanes (lanes of the runtime; default 2), wait_ms (how "
        "long it waits; default 0.5), share (share of the cores; default auto), rows (rows at a time), fast (default "
        "False), where (a place; default here), kind (default Plain)"
    )
    with pytest.raises(ValueError, match=r"^theirs has no option 'lane'; it has none$"):
        read("theirs", NoOptions, {"lane": 1})


def test_the_options_that_the_documentation_shows_are_some() -> None:
    page = (Path(__file__).parents[3] / "docs/extending.md").read_text(encoding="utf-8")
    [code] = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "option(" in each)
    names: dict[str, Any] = {"__name__": __name__, "dataclass": dataclass, "Literal": Literal, "option": option}
    exec(compile(dedent(code), "extending.md", "exec", dont_inherit=True), names)

    chosen = read("opencv-dnn", names["DnnOptions"], {"target": "cpu_fp16"})

    assert (chosen.target, chosen.threads) == ("cpu_fp16", None)


def test_a_plug_in_whose_options_are_no_dataclass_is_not_loaded() -> None:
    with pytest.raises(TypeError, match=r"options of Theirs: got \{'lanes': 'how many'\}, expected a dataclass"):
        type("Theirs", (Plugin,), {"options": {"lanes": "how many"}})


def test_what_is_not_set_is_the_default() -> None:
    assert read("theirs", Options, {}) == Options()
    assert read("theirs", NoOptions, {}) == NoOptions()


def test_options_are_described_for_who_lists_them() -> None:
    shown: dict[str, Any] = {each.name: each for each in describe(Options)}

    assert shown["wait_ms"] == PluginOption("wait_ms", "milliseconds from 0", 0.5, "how long it waits")
    assert shown["fast"] == PluginOption("fast", "true or false", False, "")
    assert list(shown) == ["lanes", "wait_ms", "share", "rows", "fast", "where", "kind"]


def test_only_what_says_so_is_searched() -> None:
    assert {name: its.of_lanes(8) for name, its in tuned(Options).items()} == {"lanes": 4}


def test_shortcuts_are_told_by_name_where_they_are_taken() -> None:
    @dataclass(frozen=True)
    class Fast:
        half: bool = option(False, "half of it", is_shortcut=True)
        rough: bool = option(False, "roughly", is_shortcut=True)
        lanes: int = option(2, "lanes")

    assert shortcuts(Fast(half=True, lanes=3)) == ("half",)
    assert shortcuts(Fast()) == shortcuts(NoOptions()) == ()
