"""YAML that means something else than it seems to, or too much, is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sut.cli.options import Options, configs_of
from sut.config import make_config, read_config_file
from sut.config.strict_yaml import load_yaml
from sut.errors import InputError, one_line

REFUSED = {
    "a: 1\nb: 2\na: 3": "line 3: the key 'a' stands twice",
    "{x: {a: 1, a: 1}}": "line 1: the key 'a' stands twice",
    "a: &a [1]\nb: *a": "line 2: an alias is not taken; write the value out",
    "a: " + "9" * 5000: "line 1: a whole number of 5000 digits",
    "a: 0x" + "f" * 5000: "line 1: a whole number of 5002 digits",
    "[" * 5000: "it is nested too deeply",
    "a: 2001-99-99": "month must be in 1..12",
    "!!python/object/apply:os.getcwd []": "could not determine a constructor for the tag",
    "a: [": "line 1: ",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
def test_what_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)

    with pytest.raises(ValueError, match=r"^[^\n]+$") as raised:
        load_yaml(text)
    with pytest.raises(InputError, match=r"mine\.yaml: not a readable YAML file"):
        read_config_file(tmp_path / "mine.yaml")

    assert REFUSED[text] in str(raised.value)


def test_what_is_taken() -> None:
    assert load_yaml("a: 1\nb: [1.5, yes, x]\nc: {d: null}") == {"a": 1, "b": [1.5, True, "x"], "c": {"d": None}}
    assert load_yaml("18446744073709551616") == 2**64
    assert load_yaml("") is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"output": "a\0b"}, "output: expected no NUL character, got 'a\\x00b'"),
        ({"model": "a\0.onnx"}, "model: expected no NUL character"),
        ({"dataset_path": "\ud800"}, "dataset_path: expected characters that can be encoded, got '\\ud800'"),
        ({"output": "x/" * 3000}, "output: it is too long for a path, got 'x/x/"),
        ({"model": "x" * 300 + ".onnx"}, "model: it is too long for a path, got 'xxx"),
        ({"backend": "\x1b[2J"}, "backend: got '\\x1b[2J', expected a name, got '\\x1b[2J'"),
        ({"backend": "caf\udce9"}, "backend: got 'caf\\xe9', expected a name"),
        ({"rules": "caf\udce9"}, "rules: Input should be a valid string, "),
        ({"max_batchsize": "1e400"}, "max_batchsize: "),
        ({"max_batchsize": float("inf")}, "max_batchsize: "),
        ({"time_s": 10**30}, "time_s: "),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_that_nothing_can_have(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        make_config(settings)

    assert one_line(raised.value).startswith(said)
    assert len(one_line(raised.value)) < 250


@pytest.mark.parametrize("word", ["scenario=5", "scenario=[1]", "mode=[1]", "mode=5", "mode=accurcy"])
def test_a_scenario_or_mode_that_is_no_word(word: str) -> None:
    with pytest.raises(InputError, match=r"scenario|mode"):
        configs_of(Options(set_=[word]))
