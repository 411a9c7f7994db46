"""Files that are kept: written whole, made once, and believed by their sums."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import plugins.cache as made_files
from plugins.cache import SUMS
from plugins.files import known_digest, sha256_of
from sut.errors import InputError, SetupError
from sut.files import cache_dir, cached, write_text
from sut.results.schema import dump_json
from tests.children import CHECKOUT, Running, python_started
from tests.unit.small_models import quiet


def writer(text: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(text)

    return make


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SUT_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/does/not/count")
    assert cache_dir() == tmp_path / "home" / ".cache" / "loadgen-sut"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "loadgen-sut"

    monkeypatch.setenv("SUT_CACHE_DIR", "~/mine")
    assert cache_dir() == tmp_path / "home" / "mine"


def test_without_a_home_folder_a_cache_folder_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.delenv("SUT_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(InputError, match=r"no cache folder: Could not .* directory\.; set SUT_CACHE_DIR to a folder"):
        cache_dir()
    with pytest.raises(ValueError, match="set SUT_CACHE_DIR to a folder"):
        made_files.cache_dir()


def test_a_cached_file_is_made_once_per_key(cache: Path) -> None:
    said: list[str] = []

    first = cached("model.onnx", "key 1", writer("one"), said.append)
    again = cached("model.onnx", "key 1", writer("two"), said.append)
    other = cached("model.onnx", "key 2", writer("three"), said.append)

    assert first == again != other
    assert (first.read_text(), other.read_text()) == ("one", "three")
    assert first.name == other.name == "model.onnx" and first.parents[1] == other.parents[1] == cache
    assert said == [f"making model.onnx once, as {first}", f"making model.onnx once, as {other}"]


def test_a_failed_make_leaves_nothing(cache: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise SetupError("no weights")

    with pytest.raises(SetupError, match="no weights"):
        cached("model.onnx", "key", fail, quiet)

    assert list(cache.iterdir()) == []


def test_a_full_disk_is_told_in_one_line(cache: Path) -> None:
    def fill(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=f"cache folder {cache}: No space left on device; .* SUT_CACHE_DIR"):
        cached("model.onnx", "key", fill, quiet)

    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "file" / "cache"))

    with pytest.raises(InputError, match=f"cache folder {tmp_path}/file/cache: Not a directory; .* SUT_CACHE_DIR"):
        cached("model.onnx", "key", lambda path: path.touch(), quiet)


def test_old_leftovers_go_and_young_ones_stay(cache: Path) -> None:
    folder = cached("model.onnx", "key", lambda path: path.touch(), quiet).parent
    shutil.rmtree(folder)
    old, young = cache / f".{folder.name}.old.part", cache / f".{folder.name}.young.part"
    for part in (old, young):
        part.mkdir()
        (part / "model.onnx").touch()
    os.utime(old, (0, 0))

    cached("model.onnx", "key", lambda path: path.touch(), quiet)

    assert sorted(cache.iterdir()) == sorted([young, folder])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _exchange(path: Path) -> None:
    path.write_text("two")


def _no_sums(path: Path) -> None:
    (path.parent / SUMS).unlink()


def _sums_of_another_key(path: Path) -> None:
    other = cached("model.onnx", "key 2", writer("two"), quiet)
    shutil.rmtree(path.parent)
    shutil.copytree(other.parent, path.parent)


def _a_file_in_the_way(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("two")


def _a_link_in_the_way(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.symlink_to("nowhere")


@pytest.mark.parametrize(
    "damage",
    [_empty, _exchange, Path.unlink, _no_sums, _sums_of_another_key, _a_file_in_the_way, _a_link_in_the_way],
)
def test_a_cached_file_is_believed_by_its_sum_alone(cache: Path, damage: Callable[[Path], None]) -> None:
    said: list[str] = []
    path = cached("model.onnx", "key", writer("one"), quiet)
    damage(path)

    again = cached("model.onnx", "key", writer("one"), said.append, quietly=True)

    assert (again, again.read_text()) == (path, "one")
    assert said == [f"making model.onnx again: {path.parent} is not as it was made"]
    assert cached("model.onnx", "key", writer("three"), said.append).read_text() == "one"
    assert len(said) == 1 and not list(cache.glob(".*")), "what was in its place is gone"


def test_what_another_process_mended_meanwhile_stays(cache: Path) -> None:
    path = cached("model.onnx", "key", writer("one"), quiet)
    _exchange(path)

    def late(part: Path) -> None:
        cached("model.onnx", "key", writer("one"), quiet)
        part.write_text("late")

    assert cached("model.onnx", "key", late, quiet).read_text() == "one"


def test_a_file_that_was_touched_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    os.utime(path, ns=(0, 0))
    assert known_digest(path) == sha256_of(path)

    path.write_text("two")
    os.utime(path, ns=(0, 0))

    assert known_digest(path) == sha256_of(path)
    assert known_digest(path, "md5") == "b8a9f715dbb64fd5c56e7783c6820a61"


SLOW_MAKER = """
import sys, time
from sut.files import cached

def make(path):
    with path.open("wb") as file:
        file.write(b"x" * 1000)
        file.flush()
        time.sleep(float(sys.argv[1]))
        file.write(b"y" * 1000)

print(cached("model.onnx", "key", make, lambda line: None))
"""


def slow_maker(cache: Path, pause_s: float) -> AbstractContextManager[Running]:
    return python_started("-c", SLOW_MAKER, str(pause_s), cwd=CHECKOUT, SUT_CACHE_DIR=str(cache))


def begun(cache: Path) -> int:
    return len(list(cache.glob(".*.part/model.onnx")))


def test_two_processes_at_once_never_show_half_a_file(cache: Path) -> None:
    sizes = set()
    with slow_maker(cache, 2.0) as one, slow_maker(cache, 2.0) as two:
        one.wait_until(lambda: begun(cache) == 2)
        while one.process.poll() is None or two.process.poll() is None:
            sizes |= {path.stat().st_size for path in cache.glob("model-*/model.onnx")}
            time.sleep(0.01)
        done = [one.finish(), two.finish()]

    paths = {each.out.strip() for each in done}
    assert [each.code for each in done] == [0, 0]
    assert sizes <= {2000}
    assert [str(path / "model.onnx") for path in cache.iterdir()] == list(paths)


def test_a_killed_process_leaves_no_half_file(cache: Path) -> None:
    with slow_maker(cache, 60.0) as killed:
        killed.wait_until(lambda: begun(cache) == 1)
        killed.signal(signal.SIGKILL)
        killed.finish()
    assert list(cache.glob("model-*")) == []

    path = cached("model.onnx", "key", writer("whole"), quiet)

    assert path.read_text() == "whole"


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old and longer than the new one")

    write_text(path, dump_json({"new": 1}))

    assert json.loads(path.read_text()) == {"new": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]
