"""Code is kept only where nobody else could have put some."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kernels.cache import code_dir, private_dir


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "parent" / "cache"))
    return tmp_path / "parent" / "cache"


def test_what_is_made_is_ours_alone_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        assert code_dir("numba") == folder / "numba"
    finally:
        os.umask(before)

    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, folder / "numba")] == [0o700] * 3


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


def test_a_sticky_folder_above_is_no_harm(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.parent.chmod(0o1777)

    assert code_dir("numba") == folder / "numba"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("which", ["parent", "parent/cache"])
def test_a_folder_of_another_user_is_not_used(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    folder.mkdir(parents=True)
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
