"""A plain folder: every picture in it, in the order of the paths, without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.config import RunConfig
from sut.datasets.registry import open_dataset
from sut.errors import InputError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_all_pictures_sorted_by_path(tmp_path: Path) -> None:
    fill(tmp_path, "b.PNG", "z/a.jpg", "a b/c.JPEG", "a.webp", "e.bmp", "f.tif", "g.tiff")
    fill(tmp_path, "notes.txt", "val_map.txt", ".hidden.jpg", ".git/d.jpg", "jpg")

    dataset = open_dataset("folder", tmp_path, None, None)

    assert dataset.files == ("a b/c.JPEG", "a.webp", "b.PNG", "e.bmp", "f.tif", "g.tiff", "z/a.jpg")
    assert (dataset.name, dataset.root, dataset.truth) == ("folder", tmp_path, None)
    assert dataset.read(6) == b"x"


def test_count_keeps_the_first(tmp_path: Path) -> None:
    fill(tmp_path, "c.jpg", "b.jpg", "a.jpg")

    assert open_dataset("folder", tmp_path, None, 2).files == ("a.jpg", "b.jpg")
    with pytest.raises(InputError, match="has 3 entries; use --count 3 or less"):
        open_dataset("folder", tmp_path, None, 4)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    fill(tmp_path, "readme.md", "deep/er/data.bin")

    with pytest.raises(InputError, match=f"{tmp_path} has no pictures; expected files of the kinds jpg jpeg png"):
        open_dataset("folder", tmp_path, None, None)


def test_what_is_no_folder(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")

    with pytest.raises(InputError, match=r"a\.jpg is not a folder; expected a folder that holds pictures"):
        open_dataset("folder", tmp_path / "a.jpg", None, None)
    with pytest.raises(InputError, match="nothing does not exist"):
        open_dataset("folder", tmp_path / "nothing", None, None)
    with pytest.raises(InputError, match="data set folder has no path; give --dataset-path DIR"):
        open_dataset("folder", None, None, None)
    with pytest.raises(InputError, match=r"takes all pictures in .*, got list\.txt"):
        open_dataset("folder", tmp_path, Path("list.txt"), None)


def test_a_path_without_a_list_and_a_name_says_both_ways(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")

    with pytest.raises(InputError) as refused:
        open_dataset(None, tmp_path, None, None)

    for fragment in (
        f"no list {tmp_path}/val_map.txt",
        "--dataset folder",
        f"./run_local.sh dataset imagenet {tmp_path}",
    ):
        assert fragment in str(refused.value)


def test_a_list_is_enough_where_tensors_stand_in_for_pictures(tmp_path: Path) -> None:
    (tmp_path / "val_map.txt").write_text("a.jpg 1\nb.jpg 2\n")
    config = RunConfig(dataset_path=tmp_path, use_preprocessed_dataset=True)

    assert open_dataset(None, tmp_path, None, None, config.reads_pictures).files == ("a.jpg", "b.jpg")
    with pytest.raises(InputError, match="2 of 2 files"):
        open_dataset(None, tmp_path, None, None)
    assert config.model_copy(update={"boundary": "jpeg"}).reads_pictures
