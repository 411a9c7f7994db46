"""Sums: a file that was changed is named, and sums that do not fit their list are not passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.datasets.base import DataSet
from sut.datasets.registry import open_dataset
from sut.datasets.sums import Sum, Sums, read_sums, sum_of, sums_path, sums_text
from sut.errors import InputError

NAMES = ("two  blanks.jpg", "val/n01/kätzchen\u2028.jpg", "# no comment")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of three files with its sums."""
    (tmp_path / "val" / "n01").mkdir(parents=True)
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    path = tmp_path / "val_map.txt"
    path.write_text("".join(f"{name} 5\n" for name in NAMES), encoding="utf-8")
    sums_path(path).write_text(sums_text({name: sum_of(name.encode()) for name in NAMES}), encoding="utf-8")
    return path


def test_what_is_written_is_read_back(listed: Path) -> None:
    sums = read_sums(listed, NAMES)

    assert sums == Sums(listed.with_name("val_map.txt.sums"), {name: sum_of(name.encode()) for name in NAMES})
    assert sum_of(b"123456789") == Sum(9, 0xCBF43926)  # the check value that all CRC-32 of this kind share


def test_a_list_without_sums_has_none(listed: Path) -> None:
    sums_path(listed).unlink()

    assert read_sums(listed, NAMES) is None
    assert open_dataset(None, listed.parent, None, None).read(2) == NAMES[2].encode()


@pytest.mark.parametrize("change", [b"# no commenT", b"# no comment ", b""])
def test_a_file_that_was_changed_is_named_when_it_is_read(listed: Path, change: bytes) -> None:
    dataset = open_dataset(None, listed.parent, None, None)
    changed = listed.parent / NAMES[2]
    changed.write_bytes(change)

    assert [dataset.read(index) for index in (0, 1)] == [NAMES[0].encode(), NAMES[1].encode()]
    with pytest.raises(InputError) as caught:
        dataset.read(2)

    assert str(caught.value).startswith(f"{changed} was changed: got {len(change)} bytes with CRC-32 ")
    assert "expected 12 with " in str(caught.value)
    assert f"({sums_path(listed)}); put it back" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("12345678 9", "line 2 is no 'CRC-32 bytes name'"),
        ("1234567g 9 a", "line 2 is no"),
        ("12345678 nine a", "line 2 is no"),
        ("12345678 9 another", "it has no sums of 3 of its pictures, such as 'two  blanks.jpg'; write the sums again"),
    ],
)
def test_sums_that_do_not_fit_are_refused(listed: Path, line: str, fragment: str) -> None:
    sums_path(listed).write_text(f"{sums_text({})}{line}\n")

    with pytest.raises(InputError) as caught:
        open_dataset(None, listed.parent, None, None)

    assert str(caught.value).startswith(str(sums_path(listed)))
    assert fragment in str(caught.value)


def test_sums_belong_to_their_list_and_to_those_of_its_files_that_are_used(listed: Path) -> None:
    other = listed.with_name("other.txt")
    other.write_text(f"{NAMES[0]} 7\n")
    sums_path(listed).write_text(sums_text({NAMES[0]: sum_of(b"")}))

    assert open_dataset(None, listed.parent, other, None).read(0) == NAMES[0].encode()
    first = open_dataset(None, listed.parent, None, 1)
    with pytest.raises(InputError, match="was changed"):
        first.read(0)
    with pytest.raises(InputError, match=r"no sums of 2 of its pictures"):
        open_dataset(None, listed.parent, None, None)


def test_a_list_whose_pictures_are_not_read_needs_no_sums(listed: Path) -> None:
    sums_path(listed).write_text("nonsense")

    assert open_dataset(None, listed.parent, None, None, pictures=False).sums is None


def test_every_demo_photo_has_its_sum() -> None:
    demo: DataSet = open_dataset("demo", None, None, 5)

    assert demo.sums is not None
    assert {*demo.files} < {*demo.sums.by_name}
    for index in range(demo.count):
        assert demo.read(index)
