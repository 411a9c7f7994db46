"""Any name is shown, and written as JSON, without harm and without loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugins.files import utf8_path
from sut.errors import InputError, one_line
from sut.text import as_name, checked_name, encodable, printable, printable_lines


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xc3\xa9 1.jpg", "café 1.jpg"),
        (b"caf\xe9", "caf\\xe9"),
        (b"\x1b[2J\a\r\n\t\x7f", "\\x1b[2J\\x07\\r\\n\\t\\x7f"),
        ("\x9b2J\u202e\u2028".encode(), "\\u009b2J\\u202e\\u2028"),
        ("\U000e0001".encode(), "\\U000e0001"),
    ],
)
def test_a_name_is_shown_escaped_once(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == printable(shown) == shown
    assert one_line(InputError(f"{os.fsdecode(name)}: no such file")) == f"{shown}: no such file"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("Köln", "Köln"),
        ("A\u0308hre-2.1", "Ähre-2.1"),
        ("मॉडल", "मॉडल"),
        ("모델 (2)", "모델-2"),
        ("a\u202eb\uff0fc\x1b\udce9d", "a-b-c-d"),
        ("-.Ö.-", "Ö"),
        ("\udcff", "model"),
        ("ü" * 125, "ü" * 100),
    ],
)
def test_a_files_name_is_kept_as_a_models_where_a_folder_can_have_it(stem: str, name: str) -> None:
    assert as_name(stem) == name
    assert checked_name(stem if stem == name else name) == name
    assert len(os.fsencode(name)) <= 200


@pytest.mark.parametrize("text", ["", "-a", ".hidden", "a/b", "a b", "a\0", "a\u202e", "caf\udce9", "\u0308a"])
def test_what_no_folder_should_be_called_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        checked_name(text)


def test_line_breaks_of_others_become_blanks() -> None:
    assert one_line(ValueError("two\nlines \x1b[0m")) == "two lines \\x1b[0m"
    assert printable_lines("Traceback\n  \x1b[2J\n") == "Traceback\n  \\x1b[2J\n"


def test_json_for_strict_readers_changes_nothing_else() -> None:
    value = {"a\udce9": ["\x1b", ("x", 1.5)], "b": {"c": None, "d": True}}

    assert encodable(value) == {"a\\xe9": ["\x1b", ["x", 1.5]], "b": {"c": None, "d": True}}


@pytest.mark.parametrize(("folder", "name"), [(b"plain", b"plain"), (b"caf\xe9", b"plain"), (b"caf\xe9", b"\xe9.onnx")])
def test_any_file_has_a_path_in_utf8(tmp_path: Path, folder: bytes, name: bytes) -> None:
    (tmp_path / os.fsdecode(folder)).mkdir()
    path = tmp_path / os.fsdecode(folder) / os.fsdecode(name)
    path.write_text("content")

    with utf8_path(path) as named:
        assert str(named).encode()
        assert (named.read_text(), named.suffix) == ("content", path.suffix)

    assert (named == path) == (folder == b"plain")
    assert named == path or not named.exists()
