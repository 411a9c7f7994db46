"""What is chosen by its name: whatever it is, an unknown name is told in the same words, and so is what is broken."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import backends.registry
import preprocess.registry
import sut.channels.registry
from sut.datasets.registry import open_dataset
from sut.errors import InputError, SetupError
from sut.models.registry import find
from sut.tasks.registry import find_task


def dataset(name: str) -> Any:
    return open_dataset(name, None, None, None)


SUTS: dict[str, tuple[Callable[[str], Any], str]] = {
    "model": (find, "mobilenet"),
    "data set": (dataset, "imagenet"),
    "task": (find_task, "classification"),
}
BELOW: dict[str, tuple[Callable[[str], Any], str]] = {
    "backend": (backends.registry.load, "openvino"),
    "preprocessor": (preprocess.registry.load, "opencv"),
    "channel": (sut.channels.registry.load, "shared"),
}
ALL = SUTS | BELOW


@pytest.mark.parametrize("kind", ALL)
def test_an_unknown_name_is_told_with_the_nearest_known_one(kind: str) -> None:
    load, name = ALL[kind]
    wrong = name[:-1]

    with pytest.raises((ValueError, InputError)) as refused:
        load(wrong)

    said = str(refused.value)
    assert said.startswith(f"unknown {kind} '{wrong}'; did you mean {name}? known: ")
    known = said.partition("known: ")[2].split(", ")
    assert name in known
    assert known == sorted(known)


@pytest.mark.parametrize("kind", SUTS)
def test_what_cannot_be_loaded_is_a_matter_of_the_installation(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    points = [EntryPoint("broken", "no_such_module:x", "any")]
    monkeypatch.setattr("plugins.registry.entry_points", lambda group: points)

    with pytest.raises(SetupError) as refused:
        SUTS[kind][0]("broken")

    assert str(refused.value) == (
        f"{kind} broken (no_such_module:x) cannot be loaded: No module named 'no_such_module'"
    )


@pytest.mark.parametrize("kind", BELOW)
def test_only_a_class_of_the_kind_will_do(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    points = [EntryPoint("theirs", "sut.config:RunConfig", "any")]
    monkeypatch.setattr("plugins.registry.entry_points", lambda group: points)

    with pytest.raises(ValueError, match=rf"the {kind} theirs is sut\.config:RunConfig, expected a class derived from"):
        BELOW[kind][0]("theirs")
