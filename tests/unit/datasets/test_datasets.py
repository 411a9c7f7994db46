"""Data sets: the order is the list's, and whatever is wrong is found and named before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.datasets import registry
from sut.datasets.base import DataSet
from sut.datasets.demo import open_demo
from sut.datasets.imagenet import open_imagenet, picture_names, validation_labels
from sut.datasets.registry import open_dataset
from sut.errors import InputError, SetupError


def write_set(root: Path, text: str | bytes, *names: str) -> Path:
    """A data set of one-byte files, with ``text`` as its list."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "val_map.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_demo_has_the_order_and_labels_of_its_table() -> None:
    demo = open_demo()

    assert (demo.name, demo.count) == ("demo", 11)
    assert demo.files[:2] == ("bee.jpg", "cat_egyptian.jpg")
    assert demo.files[-1] == "palace.jpg"
    assert demo.truth is not None
    assert demo.truth.dtype == np.int32
    assert demo.truth.tolist() == [309, 285, 283, 284, 281, 967, 839, 872, 970, 696, 698]


def test_every_demo_photo_is_a_picture() -> None:
    demo = open_demo()

    for index in range(demo.count):
        assert cv2.imdecode(np.frombuffer(demo.read(index), np.uint8), cv2.IMREAD_COLOR) is not None, demo.files[index]


def test_the_order_is_that_of_the_list(tmp_path: Path) -> None:
    dataset = open_imagenet(write_set(tmp_path, "c.jpg 999\na.jpg 0\nb.jpg 7\n", "a.jpg", "b.jpg", "c.jpg"), None, None)

    assert dataset.files == ("c.jpg", "a.jpg", "b.jpg")
    assert dataset.truth is not None
    assert dataset.truth.tolist() == [999, 0, 7]
    assert dataset.truth.dtype == np.int32


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my cat 2.jpg 5\n", "my cat 2.jpg"),
        ("two  blanks.jpg \t 5\n", "two  blanks.jpg"),
        ("val/n01/a.jpg\t5", "val/n01/a.jpg"),
        ("./a.jpg 5\n", "a.jpg"),
        ("sub/../a.jpg 5\n", "a.jpg"),
        ("  a.jpg 5  \n", "a.jpg"),
        ("a.jpg 5\n\n \t\n\n", "a.jpg"),
        ("a.jpg 5\r\n\r\n", "a.jpg"),
        ("\ufeffa.jpg 5\n", "a.jpg"),
        ("..a.jpg 5\n", "..a.jpg"),
        ("kätzchen\u2028ü.jpg 005\n", "kätzchen\u2028ü.jpg"),
    ],
)
def test_lines_that_are_fine(tmp_path: Path, text: str, name: str) -> None:
    dataset = open_imagenet(write_set(tmp_path, text, name), None, None)

    assert dataset.files == (name,)
    assert dataset.truth is not None
    assert dataset.truth.tolist() == [5]
    assert dataset.read(0) == b"x"


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a.jpg 1\n\nb.jpg 2\n", "line 2 is blank"),
        ("a.jpg 1\n \t\r\nb.jpg 2\n", "line 2 is blank"),
        ("\na.jpg 1\n", "line 1 is blank"),
        ("a.jpg 1\nb.jpg 2\n./a.jpg 3\n", "lines 1 and 3 both name 'a.jpg'"),
        ("a.jpg 1\nb.jpg two\n", "line 2 has label 'two'; expected an integer from 0 to 999"),
        ("a.jpg 1000\n", "line 1 has label '1000'"),
        ("a.jpg -1\n", "line 1 has label '-1'"),
        ("a.jpg 1.0\n", "line 1 has label '1.0'"),
        ("a.jpg 1_0\n", "line 1 has label '1_0'"),
        ("a.jpg ٣\n", "line 1 has label"),
        (f"a.jpg {'9' * 5000}\n", "line 1 has label '999"),
        ("a.jpg\n", "line 1 has one column, 'a.jpg'"),
        (" 7\n", "line 1 has one column, '7'"),
        ("", "is empty"),
        ("\n \r\n", "is empty"),
        ("/etc/passwd 1\n", "'/etc/passwd' is no file below"),
        ("../b.jpg 1\n", "'../b.jpg' is no file below"),
        ("sub/../../b.jpg 1\n", "is no file below"),
        (".. 1\n", "'..' is no file below"),
        ("a\0.jpg 1\n", r"'a\x00.jpg' is no file below"),
        (b"a.jpg 1\nk\xe4tzchen.jpg 2\n", "'k\\xe4tzchen.jpg' (line 2: missing)"),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, text: str | bytes, fragment: str) -> None:
    write_set(tmp_path, text, "a.jpg", "b.jpg")

    with pytest.raises(InputError) as caught:
        open_imagenet(tmp_path, None, None)

    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def imagenet() -> DataSet:
    labels = validation_labels()
    return DataSet(
        "imagenet", Path(), tuple(picture_names()), np.array([labels[name] for name in picture_names()], np.int32)
    )


def swapped(dataset: DataSet) -> DataSet:
    """The first two lines of the list in the other order."""
    order = [1, 0, *range(2, dataset.count)]
    assert dataset.truth is not None
    return replace(dataset, files=tuple(dataset.files[at] for at in order), truth=dataset.truth[order])


def with_label(dataset: DataSet, index: int, label: int) -> DataSet:
    assert dataset.truth is not None
    labels = dataset.truth.copy()
    labels[index] = label
    return replace(dataset, truth=labels)


@pytest.mark.parametrize(
    ("change", "still"),
    [
        (lambda whole: whole, True),
        (lambda whole: replace(whole, files=tuple(f"val/n01440764/{file}" for file in whole.files)), True),
        (lambda whole: replace(whole, name="mine", root=Path("/elsewhere")), True),
        (lambda whole: with_label(whole, 49_999, 1), False),
        (lambda whole: replace(whole, files=("ILSVRC2012_val_00000001.jpg", *whole.files[1:])), False),
        (lambda whole: replace(whole, files=(*whole.files[:-1], "\udce4.JPEG")), False),
        (swapped, False),
        (lambda whole: replace(whole, files=whole.files[:-1], truth=whole.truth[:-1]), False),
        (lambda whole: replace(whole, truth=None), False),
    ],
    ids=["all", "in folders", "elsewhere", "a label", "a name", "no UTF-8", "the order", "one less", "no labels"],
)
def test_imagenet_is_known_by_names_labels_and_order(change: Callable[[DataSet], DataSet], still: bool) -> None:
    assert change(imagenet()).is_imagenet() is still


def test_the_number_of_classes_bounds_the_labels(tmp_path: Path) -> None:
    write_set(tmp_path, "a.jpg 1000\n", "a.jpg")

    assert open_imagenet(tmp_path, None, None, classes=1001).count == 1
    with pytest.raises(InputError, match="from 0 to 9"):
        open_imagenet(tmp_path, None, None, classes=10)


def test_bad_files_are_all_counted_and_the_first_named(tmp_path: Path) -> None:
    write_set(tmp_path, "".join(f"{name} 1\n" for name in ("a", "gone", "sub/gone", "empty", "folder", "a/b")), "a")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()

    with pytest.raises(InputError) as caught:
        open_imagenet(tmp_path, None, None)

    message = str(caught.value)
    assert message.startswith("5 of 6 files")
    assert "'gone' (line 2: missing), 'sub/gone' (line 3: missing), 'empty' (line 4: empty) and 2 more" in message
    assert message.endswith(f"looked in {tmp_path}")


@pytest.mark.parametrize(("name", "fragment"), [("folder", "not a file"), ("a/b", "missing"), ("n" * 300, "too long")])
def test_what_is_wrong_with_a_file(tmp_path: Path, name: str, fragment: str) -> None:
    write_set(tmp_path, f"{name} 1\n", "a")
    (tmp_path / "folder").mkdir()

    with pytest.raises(InputError, match=f"line 1: .*{fragment}"):
        open_imagenet(tmp_path, None, None)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, "a.jpg 1\nb.jpg 2\n", "a.jpg", "b.jpg")
    monkeypatch.setattr(os, "access", lambda file, mode: not str(file).endswith("b.jpg"))

    with pytest.raises(InputError, match=r"1 of 2 files .*'b.jpg' \(line 2: unreadable\)"):
        open_imagenet(tmp_path, None, None)


def test_count_takes_the_first_and_looks_for_no_other_file(tmp_path: Path) -> None:
    write_set(tmp_path, "a.jpg 1\nb.jpg 2\ngone.jpg 3\n", "a.jpg", "b.jpg")

    dataset = open_imagenet(tmp_path, None, 2)

    assert dataset.files == ("a.jpg", "b.jpg")
    assert dataset.truth is not None
    assert dataset.truth.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("count", "fragment"), [(0, "count is 0"), (-1, "count is -1"), (3, "has 2 entries; use --count 2")]
)
def test_count_beyond_its_bounds(tmp_path: Path, count: int, fragment: str) -> None:
    write_set(tmp_path, "a.jpg 1\nb.jpg 2\n", "a.jpg", "b.jpg")

    with pytest.raises(InputError, match=fragment):
        open_imagenet(tmp_path, None, count)


def test_another_list(tmp_path: Path) -> None:
    write_set(tmp_path, "a.jpg 1\nb.jpg 2\n", "a.jpg", "b.jpg")
    other = tmp_path / "other.txt"
    other.write_text("b.jpg 3\n")

    assert open_imagenet(tmp_path, other, None).files == ("b.jpg",)
    with pytest.raises(InputError, match=r"there is no list .*none\.txt.*--dataset-list"):
        open_imagenet(tmp_path, tmp_path / "none.txt", None)
    with pytest.raises(InputError, match="cannot read the list"):
        open_imagenet(tmp_path, tmp_path, None)


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(InputError, match=r"none does not exist; expected the folder"):
        open_imagenet(tmp_path / "none", None, None)
    with pytest.raises(InputError, match="file is not a folder"):
        open_imagenet(file, None, None)
    with pytest.raises(InputError, match="cannot be opened"):
        open_imagenet(tmp_path / ("n" * 300), None, None)
    with pytest.raises(InputError, match=r"there is no list .*val_map\.txt"):
        open_imagenet(tmp_path, None, None)


PART = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=30
).filter(lambda text: text == text.strip(" \t") and text not in (".", "..") and not text.startswith("\ufeff"))
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(NAME, st.integers(0, 999), min_size=1), st.sampled_from([" ", "\t", "  \t "]), st.booleans())
def test_a_written_list_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, int], separator: str, windows: bool
) -> None:
    root = tmp_path_factory.mktemp("set")
    end = "\r\n" if windows else "\n"
    text = "".join(f"{name}{separator}{label}{end}" for name, label in entries.items())
    (root / "val_map.txt").write_bytes(text.encode("utf-8-sig" if windows else "utf-8"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sut.datasets.imagenet.check_files", lambda *_: None)
        dataset = open_imagenet(root, None, None)

    assert dataset.files == tuple(entries)
    assert dataset.truth is not None
    assert dataset.truth.tolist() == list(entries.values())


def test_without_anything_the_demo_photos() -> None:
    assert open_dataset(None, None, None, None).name == "demo"
    assert open_dataset("demo", None, None, 11).count == 11


def test_count_applies_to_the_demo_photos() -> None:
    demo = open_dataset("demo", None, None, 3)

    assert demo.files == ("bee.jpg", "cat_egyptian.jpg", "cat_persian.jpg")
    assert demo.truth is not None
    assert demo.truth.tolist() == [309, 285, 283]
    with pytest.raises(InputError, match="the demo data set has 11 entries; use --count 11"):
        open_dataset(None, None, None, 12)
    with pytest.raises(InputError, match="count is 0"):
        open_dataset(None, None, None, 0)


@pytest.mark.parametrize("name", [None, "imagenet", "imagenet_mobilenet", "imagenet_pytorch"])
def test_a_path_is_the_imagenet_layout(tmp_path: Path, name: str | None) -> None:
    write_set(tmp_path, "a.jpg 1\nb.jpg 2\n", "a.jpg", "b.jpg")
    (tmp_path / "list").write_text("b.jpg 9\n")

    assert open_dataset(name, tmp_path, None, 1).files == ("a.jpg",)
    assert open_dataset(name, tmp_path, tmp_path / "list", None).files == ("b.jpg",)


@pytest.mark.parametrize(
    ("name", "path", "list_file", "fragments"),
    [
        ("imagenet", None, None, ["imagenet has no path", "--dataset-path", "DATA_DIR"]),
        (None, None, Path("list.txt"), ["no path", "--dataset-path"]),
        ("imagnet", None, None, ["unknown data set 'imagnet'", "did you mean imagenet?", "demo"]),
        ("voc", Path("/"), None, ["unknown data set 'voc'", "known: albums, coco, demo, folder, imagenet"]),
        ("demo", Path("/pictures"), None, ["demo comes with the project", "/pictures"]),
        ("demo", None, Path("list.txt"), ["demo comes with the project", "list.txt"]),
        (None, Path("/nowhere"), None, ["/nowhere does not exist"]),
    ],
)
def test_words_that_are_refused(
    name: str | None, path: Path | None, list_file: Path | None, fragments: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        open_dataset(name, path, list_file, None)

    for fragment in fragments:
        assert fragment in str(caught.value)


def open_flowers(path: Path | None, list_file: Path | None, count: int | None) -> DataSet:
    """An opener as another package would bring it."""
    assert list_file is None
    return DataSet("flowers", path or Path(), ("rose.jpg",) * (count or 1), None)


def open_nothing(path: Path | None, list_file: Path | None, count: int | None) -> None:
    """An opener that is wrong."""


def test_entry_points_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"flowers": f"{__name__}:open_flowers", "nothing": f"{__name__}:open_nothing", "broken": "no_such_module:x"}
    points = [EntryPoint(name, value, registry.GROUP) for name, value in words.items()]
    monkeypatch.setattr("plugins.registry.entry_points", lambda group: points if group == "sut.datasets" else [])

    assert open_dataset("flowers", Path("/x"), None, 2).files == ("rose.jpg", "rose.jpg")
    with pytest.raises(SetupError, match=r"broken .*cannot be loaded: No module named 'no_such_module'"):
        open_dataset("broken", None, None, None)
    with pytest.raises(SetupError, match="gave a NoneType, expected a DataSet"):
        open_dataset("nothing", None, None, None)
    with pytest.raises(InputError, match="did you mean flowers"):
        open_dataset("flower", None, None, None)
