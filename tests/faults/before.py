"""Faults that are there before LoadGen starts: models, files, settings, packages, caches, names; and the clock."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from tests.faults.harness import Fault
from tests.faults.in_run import FAILED, INFER
from tests.integration.support import Sut
from tests.unit.odd_models import BACKGROUND, write_odd
from tests.unit.small_models import write_own

REFUSED = (1,)
Prepare = Callable[[Sut], Sequence[str]]
TIME = ("--time", "0.3", "--threads", "1")


def _input(name: str, group: str, prepare: Prepare, codes: tuple[int, ...] = REFUSED, **more: object) -> Fault:
    return Fault(name, group, codes, prepare=prepare, in_run=False, result=codes != REFUSED, **more)  # type: ignore[arg-type]


# Files that are none.


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _given(option: str, suffix: str, make: Callable[[Path], None], sut: Sut) -> Sequence[str]:
    path = sut.cwd / f"given{suffix}"
    make(path)
    if option == "--recipe":
        return ["--backend", "onnxruntime", "--model", str(write_own(sut.cwd / "own.onnx")), option, str(path)]
    if option == "--dataset-list":
        return ["--dataset-path", str(sut.pictures()), option, str(path)]
    if option == "--calibration-list":
        return ["--backend", "onnxruntime", "--precision", "int8", option, str(path)]
    return [*(["--backend", "onnxruntime"] if option == "--model" else []), option, str(path)]


_OPTIONS = {
    **{"--model": ".onnx", "--recipe": ".yaml", "--config": ".yaml", "--dataset-list": ".txt"},
    **{"--user_conf": ".conf", "--mlperf_conf": ".conf", "--audit_conf": ".config", "--calibration-list": ".txt"},
}
_KINDS = {"a FIFO": _fifo, "/dev/zero": _zeros, "a folder": _folder}
FILES = [
    _input(
        f"{option} is {what}", "files that are none", partial(_given, option, suffix, make), worst=option == "--config"
    )
    for option, suffix in _OPTIONS.items()
    for what, make in _KINDS.items()
]


def _pictures(change: Callable[[Path], object], sut: Sut) -> Sequence[str]:
    folder = sut.pictures()
    change(folder)
    return ["--dataset-path", str(folder)]


def _picture(data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "grey picture 3.jpg").write_bytes(data)


def _replaced(make: Callable[[Path], None]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / "grey picture 3.jpg").unlink()
        make(folder / "grey picture 3.jpg")

    return change


def _listed(edit: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / "val_map.txt").write_text(edit((folder / "val_map.txt").read_text()))


def _bomb() -> bytes:
    """A PNG of a hundred bytes that says it is 60,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


_JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
_BAD_PICTURES = {
    "a picture is a FIFO": _replaced(_fifo),
    "a picture is a folder": _replaced(_folder),
    "a picture is /dev/zero": _replaced(_zeros),
    "a picture is missing": lambda folder: (folder / "grey picture 3.jpg").unlink(),
    "a picture is empty": _picture(b""),
    "a picture is text": _picture(b"hello, this is no picture"),
    "a picture ends in the middle": _picture(_JPEG[: len(_JPEG) // 2]),
    "a picture's data is damaged": _picture(_JPEG[:700] + b"\xff\xd4" * 40 + _JPEG[780:]),
    "a picture unfolds to 10 GB": _picture(_bomb()),
    "the list is empty": _listed(lambda text: ""),
    "the list has a blank line": _listed(lambda text: text.replace("\n", "\n\n", 1)),
    "the list names a picture twice": _listed(lambda text: text + text.splitlines()[0] + "\n"),
    "the list has a label of 1000": _listed(lambda text: text.replace(" 3\n", " 1000\n")),
    "the list has no labels": _listed(lambda text: "\n".join(line.rpartition(" ")[0] for line in text.splitlines())),
    "the list leaves the folder": _listed(lambda text: "../" + text),
    "the list is noise": lambda folder: (folder / "val_map.txt").write_bytes(bytes(range(256))),
}
PICTURES = [
    _input(name, "pictures and their list", partial(_pictures, change), worst="10 GB" in name)
    for name, change in _BAD_PICTURES.items()
]


def _own_model(data: Callable[[Path], object], sut: Sut) -> Sequence[str]:
    path = write_own(sut.cwd / "own.onnx")
    data(path)
    return ["--backend", "onnxruntime", "--model", str(path), "--model-name", "efficientnet-lite0", *TIME]


_BAD_MODELS: dict[str, Callable[[Path], object]] = {
    "a model is empty": lambda path: path.write_bytes(b""),
    "a model ends in the middle": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "a model is a Git LFS pointer": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
    "a model is a web page": lambda path: path.write_bytes(b"<!DOCTYPE html><html></html>"),
    "a model is noise": lambda path: path.write_bytes(bytes(range(256)) * 99),
    "a model has two inputs": lambda path: write_own(path, inputs=2),
    "a model has 7 classes": lambda path: write_own(path, classes=7),
    "a model takes 100 pixels": lambda path: write_own(path, axes=(None, 3, 100, 100)),
    "a model has an operator that nobody knows": lambda path: write_own(path, pool="Sqeeze"),
}
MODELS = [_input(name, "models", partial(_own_model, change)) for name, change in _BAD_MODELS.items()]


def _odd(kind: str, sut: Sut) -> Sequence[str]:
    (sut.cwd / "recipe.yaml").write_text(BACKGROUND)
    model = write_odd(sut.cwd / "odd.onnx", kind)
    return ["--backend", "onnxruntime", "--model", str(model), "--recipe", "recipe.yaml", *TIME]


def _constant(sut: Sut) -> Sequence[str]:
    """A model of a few kilobytes that calls itself MLPerf's, on links to one picture."""
    folder = sut.cwd / "pictures"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(_JPEG)
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 51)]
    for name in names:
        (folder / name).symlink_to("one.jpg")
    (folder / "val_map.txt").write_text("".join(f"{name} 5\n" for name in names))
    model = write_own(sut.cwd / "resnet50_v1.onnx", classes=1001)
    return [
        "--backend",
        "onnxruntime",
        "--model",
        str(model),
        "--accuracy",
        "--scenario",
        "Offline",
        "--dataset-path",
        str(folder),
    ]


_ODD = {
    "softmax over batch": ((0, 4), "answers depend on the batch"),
    "training norm": ((0, 4), "answers depend on the batch"),
    "scaled by batch": ((0, 4), "depend on the batch"),
    "constant": ((0, 4), "got the label"),
    "noise": ((3,), "differently when asked twice"),
    "nan behind argmax": ((3,), "not finite"),
    "twice the rows": ((3,), "2 rows for a batch of 1"),
}
ODD = [
    *(
        _input(
            f"a model: {kind}", "models that answer wrongly", partial(_odd, kind), codes, says=says, worst=3 in codes
        )
        for kind, (codes, says) in _ODD.items()
    ),
    _input(
        "a model with two outputs that fit", "models that answer wrongly", partial(_odd, "two scores"), says="--outputs"
    ),
    _input(
        "a constant that is called resnet50", "models that answer wrongly", _constant, (0,), says="not MLPerf's file"
    ),
]


def _text(option: str, name: str, text: str, sut: Sut) -> Sequence[str]:
    (sut.cwd / name).write_text(text)
    return [option, name]


_CONFS = {
    "user.conf without blanks": "*.Server.target_qps=4\n",
    "user.conf with a key that nobody knows": "*.Server.target_qpz = 4\n",
    "user.conf with a seed": "*.*.qsl_rng_seed = 1\n",
    "user.conf with a mode": "*.*.mode = 2\n",
    "user.conf with a comment behind a value": "*.Server.target_qps = 4 # four\n",
    "user.conf with 1e3 for a whole number": "*.Server.min_query_count = 1e3\n",
    "user.conf that asks for issue threads": "*.Server.server_num_issue_query_threads = 2\n",
}
_YAMLS = {
    "a config 100,000 lists deep": "time_s: " + "[" * 100_000,
    "a config with a key that stands twice": "lanes: 1\nlanes: 2\n",
    "a config with a whole number of 5,000 digits": f"count: {'9' * 5000}\n",
    "a config that is a list": "- lanes\n",
    "a config that makes Python objects": "lanes: !!python/object/apply:os.getpid []\n",
    "a config with an anchor that unfolds": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "a config with a tab": "lanes:\t[\n",
}
_WORDS: dict[str, Sequence[str]] = {
    "a count of 10^20": ("--count", "9" * 20),
    "a batch size of 1e400": ("--set", "max_batchsize=1e400"),
    "a batch size that is a list": ("--set", "max_batchsize=[1]"),
    "a setting a thousand lists deep": ("--set", f"lanes={'[' * 5000}"),
    "a path of 5,000 letters": ("--config", "x" * 5000),
    "an output of 5,000 letters": ("--output", "x" * 5000),
    "a backend option that nobody knows": ("--set", "backend_options.colour=red"),
    "a million lanes": ("--lanes", "1000000"),
    "no seconds": ("--time", "-1"),
    "a rate that is no number": ("--qps", "nan"),
}
SETTINGS = [
    *(_input(name, "settings", partial(_text, "--user_conf", "u.conf", text)) for name, text in _CONFS.items()),
    *(_input(name, "settings", partial(_text, "--config", "c.yaml", text)) for name, text in _YAMLS.items()),
    *(_input(name, "settings", lambda sut, words=words: words) for name, words in _WORDS.items()),
    _input(
        "a misspelt key in audit.config",
        "settings",
        partial(_text, "--audit_conf", "a.config", "*.*.accuracy_log_rng_sed = 1\n"),
        says="accuracy_log_rng_sed",
    ),
]


def _place(make: Callable[[Sut], object], sut: Sut) -> Sequence[str]:
    make(sut)
    return ()


_PLACES: dict[str, Callable[[Sut], object]] = {
    "the output is a file": lambda sut: sut.output.touch(),
    "the output is a link to nowhere": lambda sut: sut.output.symlink_to("/nowhere/at/all"),
    "the output is a FIFO": lambda sut: os.mkfifo(sut.output),
}
PLACES = [_input(name, "places", partial(_place, make)) for name, make in _PLACES.items()]


# Packages.


def _broken(package: str, text: str, sut: Sut) -> Sequence[str]:
    (sut.packages / f"{package}.py").write_text(text)
    return ("--backend", "onnxruntime") if package in ("onnxruntime", "onnx") else ()


_MISSING = "raise ModuleNotFoundError('No module named ' + repr(__name__), name=__name__)\n"
PACKAGES = [
    *(
        _input(f"the package {package} is missing", "packages", partial(_broken, package, _MISSING), (2,), says="install")
        for package in ("yaml", "rich", "typer", "pydantic", "numpy", "mlperf_loadgen", "cv2", "simplejpeg", "onnxruntime", "onnx")
    ),
    *(
        _input(f"the package {package} {what}", "packages", partial(_broken, package, text), (2,), says="install")
        for package, what, text in (
            ("yaml", "is cut off", "def load(:\n"),
            ("numpy", "lacks a library", "raise ImportError('libopenblas.so: cannot open shared object file')\n"),
            ("cv2", "lacks a library", "raise ImportError('libGL.so.1: cannot open shared object file')\n"),
            ("mlperf_loadgen", "is of another make", "raise ImportError('undefined symbol: PyObject_Foo')\n"),
        )
    ),
]  # fmt: skip
PACKAGES = [Fault(**{**{name: getattr(each, name) for name in Fault.__slots__}, "result": False}) for each in PACKAGES]


# The cache.


def _poisoned(poison: Callable[[Path], object], sut: Sut) -> Sequence[str]:
    first = sut.run("--backend", "onnxruntime", *TIME, "--output", "first", SUT_FAULT="")
    assert first.code == 0, first.err
    [model] = sut.cache.glob("*/*.onnx")
    poison(model)
    return ("--backend", "onnxruntime", *TIME)


_POISONS: dict[str, Callable[[Path], object]] = {
    "another model": lambda path: write_own(path),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "nothing": lambda path: os.truncate(path, 0),
    "9 MB of noise": lambda path: path.write_bytes(np.random.default_rng(1).bytes(9_000_000)),
    "itself with one bit turned": lambda path: path.write_bytes(
        (data := path.read_bytes())[:9_000_000] + bytes([data[9_000_000] ^ 1]) + data[9_000_001:]
    ),
}
CACHE = [
    _input(
        f"the cached model is {what}",
        "the cache",
        partial(_poisoned, poison),
        (0,),
        says="again: ",
        worst="bit" in what,
    )
    for what, poison in _POISONS.items()
]


# Names.

_CAFE = os.fsdecode(b"caf\xe9")


def _named(what: str, name: str, sut: Sut) -> Sequence[str]:
    path = sut.cwd / name
    if what == "the output":
        return ["--output", f"output/{name}"]
    if what == "the data set":
        return ["--dataset-path", str(sut.pictures(path))]
    if what == "a picture":
        folder = sut.pictures()
        (folder / "grey picture 3.jpg").rename(folder / f"{name}.jpg")
        text = (folder / "val_map.txt").read_text().replace("grey picture 3", name)
        (folder / "val_map.txt").write_bytes(os.fsencode(text))
        return ["--dataset-path", str(folder)]
    if what == "the list":
        folder = sut.pictures()
        (folder / "val_map.txt").rename(path)
        return ["--dataset-path", str(folder), "--dataset-list", str(path)]
    path.mkdir()
    model = write_own(path / f"{name}.onnx")
    return ["--backend", "onnxruntime", "--model", str(model), "--model-name", "efficientnet-lite0", *TIME]


NAMES = [
    *(
        _input(f"{what} has a name that is not UTF-8", "names", partial(_named, what, _CAFE), (0,))
        for what in ("the output", "the data set", "a picture", "the list", "the model")
    ),
    _input("the cache has a name that is not UTF-8", "names", lambda sut: (), (0,), environment={"SUT_CACHE_DIR": f"/tmp/sut-{_CAFE}"}),
    _input("the model's name clears the screen", "names", partial(_named, "the model", "x\x1b[2Jy"), (0,)),
    _input("the output's name has a line break", "names", partial(_named, "the output", "x\ny"), (0,)),
]  # fmt: skip


# The clock.


def _clock(seconds: float, scenario: str, **more: object) -> Fault:
    step = f"ctypes.CDLL(os.environ['LD_PRELOAD']).step_clock(ctypes.c_longlong({int(seconds * 1e9)}))"
    return Fault(
        f"the system clock is set by {seconds:+g} s, {scenario}", "the clock", FAILED, INFER, step, call=20,
        scenario=scenario, prepare=_preloaded, environment={"LD_PRELOAD": "{root}/clockstep.so"}, says="clock", **more,  # type: ignore[arg-type]
    )  # fmt: skip


_SOURCE = Path(__file__).with_name("clockstep.c")


def _preloaded(sut: Sut) -> Sequence[str]:
    library = sut.cwd.parent / "clockstep.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
    return ()


CLOCK = [
    *(_clock(step, "SingleStream", worst=step == -3600) for step in (-5, 2, -3600, 3600, 0.01)),
    *(
        _clock(step + number, scenario)
        for step in (-3700, 6)
        for number, scenario in enumerate(("MultiStream", "Server", "Offline"))
    ),
]
