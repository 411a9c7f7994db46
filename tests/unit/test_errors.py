"""Exit codes, one-line messages, suggestions; and the examples in the docstrings of the packages."""

from __future__ import annotations

import doctest
import importlib
import itertools
import pkgutil

import pytest

import backends
import plugins
import sut
from plugins.registry import suggest
from sut.errors import ExitCode, InputError, RunError, SetupError, SutError, cut, cut_list, one_line, worst

MODULES = sorted(
    module.name
    for package in (backends, plugins, sut)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if module.name not in ("sut.__main__", "sut.export.triton_model")  # which Triton alone can import
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))

    assert failed == 0


def test_there_are_examples_to_try() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)

    found = [test.name for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]

    assert "sut.errors.worst" in found


FROM_WORST = [130, 3, 2, 1, 4, 0]


@pytest.mark.parametrize(("worse", "better"), list(itertools.combinations_with_replacement(FROM_WORST, 2)))
def test_of_two_runs_the_worse_code_wins_in_any_order(worse: int, better: int) -> None:
    assert worst([worse, better]) == worst([better, worse]) == worse


def test_no_run_at_all_is_no_failure() -> None:
    assert worst([]) is ExitCode.OK


@pytest.mark.parametrize(("kind", "code"), [(SutError, 3), (RunError, 3), (InputError, 1), (SetupError, 2)])
def test_every_kind_of_error_has_its_exit_code(kind: type[SutError], code: int) -> None:
    assert kind("x").exit_code == code


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n  lines\tand a tab "), "two lines and a tab"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RuntimeError("\n"), "RuntimeError"),
    ],
)
def test_an_error_is_one_line(error: BaseException, text: str) -> None:
    assert one_line(error) == text


@pytest.mark.parametrize(
    ("got", "text"),
    [
        ("OPENVINO", "did you mean openvino? known: null, openvino"),
        ("zebra", "known: null, openvino"),
        ("", "known: null, openvino"),
    ],
)
def test_a_suggestion_names_the_nearest_word_and_all_of_them(got: str, text: str) -> None:
    assert suggest(got, ["openvino", "null"]) == text


def test_a_word_near_in_capitals_is_found() -> None:
    assert suggest("server", ("SingleStream", "Server")).startswith("did you mean Server?")


def test_a_long_text_is_cut_once_and_says_by_how_much() -> None:
    assert cut("x" * 1000) == "x" * 1000

    short = cut("x" * 3000)

    assert short == "x" * 950 + " ... and 2,050 more characters"
    assert cut(short) == short
    assert one_line(ValueError("x" * 3000)) == short


def test_a_long_list_is_cut_once_and_says_by_how_much() -> None:
    assert cut_list(["a"] * 20) == ["a"] * 20

    short = cut_list(["a"] * 1021)

    assert short == ["a"] * 19 + ["and 1,002 more"]
    assert cut_list(short) == short
    assert cut_list(["x" * 3000]) == [cut("x" * 3000)]
