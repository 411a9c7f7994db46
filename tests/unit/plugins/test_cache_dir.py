"""Code is kept only where nobody else could have put some."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugins.cache import code_dir, private_dir
from preprocess.opencv import OpenCV
from sut.datasets.base import DataSet
from sut.files import cached
from sut.models.recipes import RECIPES
from sut.qsl.tensor_cache import TensorCache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "parent" / "cache"))
    return tmp_path / "parent" / "cache"


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def tensor_cache() -> None:
    TensorCache(None, DataSet("folder", Path(), ("0.jpg",), None), RECIPES["efficientnet-lite0"], OpenCV)


MAKERS: dict[str, tuple[str, Callable[[], object]]] = {
    "code": ("numba", lambda: code_dir("numba")),
    "a model": (".", lambda: cached("any.onnx", "key", Path.touch, lambda line: None)),
    "tensors": ("tensors", tensor_cache),
}


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("what", MAKERS)
def test_what_is_made_is_ours_alone_whatever_the_umask_and_whoever_makes_it(folder: Path, what: str) -> None:
    name, make = MAKERS[what]

    make()

    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, folder / name)] == [0o700] * 3


@pytest.mark.parametrize("which", ["parent", "parent/cache", "parent/cache/numba"])
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_may_write_is_not_used(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], which: str, mode: int
) -> None:
    (folder / "numba").mkdir(parents=True)
    (tmp_path / which).chmod(mode)

    assert (code_dir("numba"), code_dir("numba")) == (None, None)

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"no code is kept in '{folder}/numba': others may write to '{tmp_path / which}'; ")


@pytest.mark.parametrize("which", [".", "kernel.so", "more", "more/kernel.so"])
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_with_something_that_others_may_write_is_not_used(
    folder: Path, capsys: pytest.CaptureFixture[str], which: str, mode: int
) -> None:
    (folder / "numba/more").mkdir(parents=True)
    for name in ("kernel.so", "more/kernel.so"):
        (folder / "numba" / name).touch(0o755)
    assert code_dir("numba") == folder / "numba"
    (folder / "numba" / which).chmod(mode)

    assert code_dir("numba") is None

    assert f"others may write to '{folder / 'numba' / which}'; " in capsys.readouterr().err


@pytest.mark.usefixtures("no_umask")
def test_what_nobody_else_can_reach_may_have_any_mode(folder: Path) -> None:
    found = code_dir("numba")
    assert found
    (found / "more").mkdir()
    (found / "more/kernel.so").touch()

    assert code_dir("numba") == found


def test_what_goes_away_meanwhile_is_no_harm(folder: Path) -> None:
    found = code_dir("numba")
    assert found
    (found / "gone").symlink_to("nowhere")

    assert code_dir("numba") == found


def test_a_sticky_folder_above_is_no_harm(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.parent.chmod(0o1777)

    assert code_dir("numba") == folder / "numba"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("which", ["parent", "parent/cache", "parent/cache/numba/kernel.so"])
def test_a_folder_of_another_user_is_not_used(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    (folder / "numba").mkdir(parents=True)
    (folder / "numba/kernel.so").touch()
    os.chown(tmp_path / which, 12345, -1)

    assert code_dir("numba") is None

    assert f"'{tmp_path / which}' belongs to another user" in capsys.readouterr().err


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.parent.mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open/cache").mkdir(0o700)
    folder.symlink_to(tmp_path / "open/cache")

    assert code_dir("numba") is None

    assert f"others may write to '{tmp_path}/open'" in capsys.readouterr().err


def test_the_folder_of_a_process_is_its_own() -> None:
    assert private_dir() == private_dir()
    assert stat.S_IMODE(private_dir().stat().st_mode) == 0o700
