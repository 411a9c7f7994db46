"""What is no regular file, or an absurdly large one, is refused at once wherever a file of the user's is read."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from plugins.cache import SUMS
from plugins.files import SMALL_BYTES, open_own, read_file, whole_file
from preprocess.opencv import OpenCV
from sut.config import read_config_file
from sut.datasets.base import DataSet
from sut.datasets.imagenet import open_imagenet, write_lines
from sut.errors import InputError
from sut.files import cached
from sut.mlperf.accuracy import read_accuracy_log
from sut.mlperf.logs import DETAIL, SUMMARY, read_detail, read_summary
from sut.mlperf.userconf import read_conf
from sut.models.files import check_onnx
from sut.models.precision.calibration import _read_list
from sut.models.recipes import RECIPES, find_recipe
from sut.qsl.pictures import _examine
from sut.qsl.preprocessed import RECIPE_FILE, PreprocessedDir
from sut.qsl.tensor_cache import TensorCache
from sut.results.schema import FILE as RESULT_FILE
from sut.run.folders import _started
from sut.studies.tuning.state import FILE as STATE_FILE
from sut.studies.tuning.state import State

RECIPE = RECIPES["efficientnet-lite0"]
HANG_S = 30


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """Whoever waits for a pipe's writer is ended: against hangs only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise AssertionError("waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's address holds 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "Is a named pipe, not a file"),
    "a link to a pipe": (
        lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
        "Is a named pipe, not a file",
    ),
    "a device": (lambda path: path.symlink_to("/dev/null"), "Is a device, not a file"),
    "a socket": (_socket, "Is a socket, not a file"),
    "a folder": (Path.mkdir, "folder|directory"),
}


def dataset(root: Path) -> DataSet:
    return DataSet("folder", root, ("0.jpg",), None)


def preprocessed(path: Path) -> object:
    (path.parent / "0.jpg").touch()
    os.utime(path.parent / "0.jpg", (0, 0))
    row = np.empty(RECIPE.sample_shape, RECIPE.dtype)
    folder = PreprocessedDir(path.parent, dataset(path.parent), RECIPE, OpenCV, ready=True)
    return folder.take(0, row)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "--config": ("any.yaml", read_config_file),
    "--recipe": ("any.yaml", lambda path: find_recipe(str(path))),
    "--user_conf": ("user.conf", read_conf),
    "--dataset-list": ("val_map.txt", lambda path: open_imagenet(path.parent, path, None)),
    "--calibration-list": ("list.txt", _read_list),
    "--model": ("any.onnx", check_onnx),
    "a picture": ("0.jpg", lambda path: dataset(path.parent).read(0)),
    "a tensor": ("0.jpg.npy", preprocessed),
    "the note on tensors": (
        RECIPE_FILE,
        lambda path: PreprocessedDir(path.parent, dataset(path.parent), RECIPE, OpenCV, ready=False),
    ),
    "a tune's state": (STATE_FILE, lambda path: State.open(path.parent, {}, overwrite=False)),
    "an accuracy log": ("log.json", read_accuracy_log),
    "a detail log": (DETAIL, lambda path: read_detail(path.parent)),
    "a summary": (SUMMARY, lambda path: read_summary(path.parent)),
    "an earlier val_map.txt": ("val_map.txt", lambda path: write_lines(path, "a 1\n", overwrite=False)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, reader: str, kind: str) -> None:
    (name, read), (make, said) = READERS[reader], KINDS[kind]
    make(tmp_path / name)

    with pytest.raises((InputError, OSError, ValueError), match=said):
        read(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_no_file_of_ours_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    KINDS[kind][0](tmp_path / ".lock")

    with pytest.raises(InputError, match="cannot keep tensors"):
        TensorCache(tmp_path, dataset(tmp_path), RECIPE, OpenCV)


@pytest.mark.parametrize("reader", ["--config", "--recipe", "--user_conf", "the note on tensors"])
def test_a_file_of_absurd_size_is_refused_unread(tmp_path: Path, reader: str) -> None:
    name, read = READERS[reader]
    with (tmp_path / name).open("wb") as file:
        file.truncate(10**10)

    with pytest.raises(InputError, match="More than 1,048,576 bytes"):
        read(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_is_no_file_is_damaged(tmp_path: Path, kind: str) -> None:
    make, said = KINDS[kind]
    make(tmp_path / "0.jpg")

    assert said.lower() in str(_examine(str(tmp_path / "0.jpg"), sums=False, size=None)) or kind == "a folder"


@pytest.mark.parametrize("kind", KINDS)
def test_an_earlier_result_that_is_no_file_is_set_aside_all_the_same(tmp_path: Path, kind: str) -> None:
    KINDS[kind][0](tmp_path / RESULT_FILE)

    assert _started(tmp_path).startswith("2")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a folder"])
def test_a_file_of_the_cache_that_is_none_is_replaced_untouched(tmp_path: Path, kind: str) -> None:
    first = TensorCache(tmp_path, dataset(tmp_path), RECIPE, OpenCV)
    first.close()
    [path] = tmp_path.glob("*.tensors")
    path.unlink()
    KINDS[kind][0](path)

    TensorCache(tmp_path, dataset(tmp_path), RECIPE, OpenCV).close()

    assert path.is_file() and not path.is_symlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_made_file_whose_sums_are_no_file_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path))
    said: list[str] = []
    made = cached("any.onnx", "key", Path.touch, said.append)
    made.with_name(SUMS).unlink()
    KINDS[kind][0](made.with_name(SUMS))

    assert cached("any.onnx", "key", Path.touch, said.append) == made

    assert said[1:] == [f"making any.onnx again: {made.parent} is not as it was made"]
    assert made.with_name(SUMS).is_file()


def make_model(folder: Path) -> None:
    cached("any.onnx", "key", Path.touch, lambda line: None)


LOCKED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "the cache folder": ("", make_model),
    "the tensor cache": (".lock", lambda folder: TensorCache(folder, dataset(folder), RECIPE, OpenCV)),
}


@pytest.mark.parametrize("what", LOCKED)
def test_a_lock_that_another_process_never_lets_go_of_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    name, use = LOCKED[what]
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("plugins.files.LOCK_LIMIT_S", 0.1)
    (tmp_path / ".lock").touch()
    descriptor = os.open(tmp_path / name, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    with pytest.raises(InputError, match=r"cannot keep .*: Another process has held its lock for 0\.1 s; "):
        use(tmp_path)

    os.close(descriptor)
    use(tmp_path)


def test_a_file_that_grows_while_it_is_read_is_not_read_for_ever() -> None:
    with pytest.raises(OSError, match="More than 3 bytes"):  # the kernel says that it has no size
        read_file("/proc/self/status", 3)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "ours").symlink_to("theirs")

    with pytest.raises(OSError, match="symbolic links"):
        open_own(tmp_path / "ours", os.O_CREAT)
    with whole_file(tmp_path / "ours") as file:
        file.write(b"ours")

    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "ours").read_text() == "ours"


def test_a_file_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")

    with pytest.raises(KeyError), whole_file(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyError

    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_small_is_enough_for_what_is_shipped() -> None:
    checkout = Path(__file__).parents[3]
    shipped = [*checkout.glob("configs/**/*.yaml"), checkout / "user.conf", checkout / "mlperf.conf"]

    assert max(path.stat().st_size for path in shipped) < SMALL_BYTES / 4
