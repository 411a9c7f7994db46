"""Words, models, data sets, settings and places that do not do: each is refused in one line that says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.integration.support import Sut
from tests.unit.small_models import with_weights_outside, write_own


def tree(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.first(12)
@pytest.mark.parametrize(
    ("arguments", "code", "fragments"),
    [
        (["--backend", "nul"], 1, ["unknown backend 'nul'", "did you mean null?", "onnxruntime"]),
        (["--backend", "rises"], 1, ["unknown backend 'rises'", "did you mean raises?"]),
        (["--backend", "../null"], 1, ["backend", "'../null'", "expected a name"]),
        (["--model", "resnet5"], 1, ["unknown model 'resnet5'", "did you mean resnet50?", "efficientnet-lite0"]),
        (["--scenario", "Ofline"], 1, ["unknown scenario 'Ofline'", "did you mean Offline?", "all"]),
        (["--scenario", "Offline,sever"], 1, ["unknown scenario 'sever'", "did you mean Server?"]),
        (["--device", "cpuu"], 1, ["unknown device 'cpuu'", "did you mean cpu?", "cuda:N"]),
        (["--device", "cdua"], 1, ["unknown device 'cdua'", "did you mean cuda?"]),
        (["--device", "cuda:x"], 1, ["unknown device 'cuda:x'"]),
        (["--device", "gpu"], 2, ["null backend runs on cpu only", "'cuda'"]),
        (["--device", "cuda:1"], 2, ["null backend runs on cpu only", "'cuda:1'"]),
        (["--preprocess", "opencw"], 1, ["unknown preprocessor 'opencw'", "did you mean opencv?"]),
        (["--dataset", "imagnet"], 1, ["unknown data set 'imagnet'", "did you mean imagenet?"]),
        (["--profile", "resnet50-onnxruntim"], 1, ["unknown profile", "did you mean resnet50-onnxruntime?"]),
        (["--precision", "fp3"], 1, ["precision", "'fp3'", "fp32"]),
        (["--boundary", "tensr"], 1, ["boundary", "'tensr'", "tensor"]),
        (["--weights", "train"], 1, ["weights", "'train'", "trained"]),
        (["--weights", "random", "--backend", "onnxruntime"], 1, ["efficientnet-lite0", "random"]),
        (["--model", "resnet50", "--backend", "onnxruntime"], 1, ["MODEL_DIR is not set", "--weights random"]),
        (["--data-format", "NHWC"], 1, ["NHWC", "efficientnet-lite0 makes NCHW"]),
        (["--bakend", "null"], 1, ["--bakend", "--backend"]),
        (["--time"], 1, ["--time"]),
        (["--time", "soon"], 1, ["--time", "number"]),
        (["--time", "0"], 1, ["time_s", "greater than 0"]),
        (["--time", "nan"], 1, ["time_s", "nan"]),
        (["--count", "0"], 1, ["count", "greater than or equal to 1"]),
        (["--count", "99"], 1, ["count is 99", "11 entries"]),
        (["--lanes", "0"], 1, ["lanes"]),
        (["--set", "lane=2"], 1, ["unknown setting 'lane'", "did you mean lanes?"]),
        (["--set", "lanes"], 1, ["--set takes KEY=VALUE", "'lanes'"]),
        (["--config", "none.yaml"], 1, ["none.yaml: no such file"]),
        (["--audit_conf", "none.config"], 1, ["none.config: no such file"]),
        (["--user_conf", "none.conf"], 1, ["none.conf: no such file"]),
        (["--dataset-path", "nowhere"], 1, ["data set path nowhere does not exist"]),
        (["--accuracy", "--find-peak-performance"], 1, ["two modes"]),
        (["--find-peak-performance", "--scenario", "Offline"], 1, ["works in Server only"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_word_that_does_not_do(sut: Sut, arguments: list[str], code: int, fragments: list[str]) -> None:
    if "--backend" not in arguments:
        arguments = ["--backend", "null", *arguments]

    done = sut.run(*arguments)

    assert done.code == code, done.err
    assert all(fragment in done.error for fragment in fragments), done.error
    assert all(result["samples"] == 0 for result in done.results.values())
    if code == 1:
        assert not sut.output.exists()


def test_a_model_file_that_fits_is_run(sut: Sut) -> None:
    write_own(sut.cwd / "tiny.onnx")

    done = sut.run("--model", "tiny.onnx", "--model-name", "efficientnet-lite0", "--time", "0.3", "--threads", "1")

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert done.result["valid"] is True


def _cut(path: Path, keep: Callable[[int], int]) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: keep(len(data))])


def _without_data_file(path: Path) -> None:
    with_weights_outside(path).with_name("weights.bin").unlink()


BAD_FILES: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "does not exist, expected an .onnx file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "one byte": (lambda path: _cut(path, lambda size: 1), "is cut off or damaged (1 bytes)"),
    "its first half": (lambda path: _cut(path, lambda size: size // 2), "is cut off or damaged"),
    "without its last byte": (lambda path: _cut(path, lambda size: size - 1), "is cut off or damaged"),
    "text": (
        lambda path: path.write_text("a model, honestly"),
        "is 17 bytes of something else, expected an ONNX model",
    ),
    "a web page": (lambda path: path.write_text("<!DOCTYPE html>"), "is an HTML or XML page, expected an ONNX model"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04."), "is a Python pickle, expected an ONNX model"),
    "a git-lfs pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer",
    ),
    "without its data file": (_without_data_file, "weights.bin, which does not exist"),
}


@pytest.mark.first(3)
@pytest.mark.parametrize("what", BAD_FILES)
def test_a_model_file_that_is_none(sut: Sut, what: str) -> None:
    spoil, fragment = BAD_FILES[what]
    spoil(write_own(sut.cwd / "tiny.onnx"))

    done = sut.run("--model", "tiny.onnx", "--model-name", "efficientnet-lite0", "--time", "0.3")

    assert done.code == 1
    assert done.error.startswith("model tiny.onnx ")
    assert fragment in done.error
    assert not sut.output.exists()


@pytest.mark.first(3)
@pytest.mark.parametrize(
    ("change", "name", "fragments"),
    [
        ({}, "resnet50", ["scores float32 [?, 1000]", "expected scores [batch, 1001] for resnet50", "--model-name"]),
        ({"classes": 1001}, "efficientnet-lite0", ["scores float32 [?, 1001]", "expected scores [batch, 1000]"]),
        ({"axes": (None, 224, 224, 3)}, "efficientnet-lite0", ["another layout", "[?, 224, 224, 3]", "(NCHW)"]),
        ({"axes": (None, 3, 192, 192)}, "efficientnet-lite0", ["another size", "[?, 3, 192, 192]", "3, 224, 224]"]),
        ({"axes": (None, 1, 224, 224)}, "efficientnet-lite0", ["another number of channels", "[?, 1, 224, 224]"]),
        ({"dtype": "uint8"}, "efficientnet-lite0", ["another dtype", "images uint8", "expected float32"]),
        ({"inputs": 2}, "efficientnet-lite0", ["has 2 inputs", "more1", "expected 1"]),
        ({}, "resnet5", ["unknown model 'resnet5'", "did you mean resnet50?"]),
        ({}, None, ["tiny.onnx names no known model", "--model-name", "efficientnet-lite0"]),
    ],
)
def test_a_model_that_does_not_fit_its_recipe(
    sut: Sut, change: dict[str, object], name: str | None, fragments: list[str]
) -> None:
    write_own(sut.cwd / "tiny.onnx", **change)

    done = sut.run("--model", "tiny.onnx", *(["--model-name", name] if name else []), "--time", "0.3")

    assert done.code == 1
    assert "tiny.onnx" in done.error or "resnet5" in done.error
    assert all(fragment in done.error for fragment in fragments), done.error
    assert not sut.output.exists()


@pytest.mark.parametrize(("flag", "got", "near"), [("--inputs", "image", "images"), ("--outputs", "score", "scores")])
def test_a_tensor_that_the_model_does_not_have(sut: Sut, flag: str, got: str, near: str) -> None:
    write_own(sut.cwd / "tiny.onnx")

    done = sut.run("--model", "tiny.onnx", "--model-name", "efficientnet-lite0", flag, got)

    assert done.code == 1
    assert f"{flag}: the model has no '{got}'; did you mean {near}?" in done.error


def test_a_model_that_the_runtime_refuses(sut: Sut) -> None:
    write_own(sut.cwd / "tiny.onnx", pool="GlobalLuckPool")

    done = sut.run("--model", "tiny.onnx", "--model-name", "efficientnet-lite0", "--time", "0.3")

    assert done.code == 1
    assert "tiny.onnx: onnxruntime cannot load it: " in done.error
    assert "GlobalLuckPool" in done.error
    assert done.result["valid"] is False


@pytest.mark.first(3)
@pytest.mark.parametrize(
    ("lines", "fragment"),
    [
        (["grey picture 0.jpg 0", "gone away.jpg 1"], "'gone away.jpg' (line 2: missing)"),
        (
            ["grey picture 0.jpg 0", "grey picture 1.jpg one"],
            "line 2 has label 'one'; expected an integer from 0 to 999",
        ),
        (["grey picture 0.jpg 1000"], "line 1 has label '1000'"),
        (["grey picture 0.jpg 0", "grey picture 1.jpg -1"], "line 2 has label '-1'"),
        (
            ["grey picture 0.jpg 0", "grey picture 1.jpg 1", "grey picture 0.jpg 2"],
            "lines 1 and 3 both name 'grey picture",
        ),
        (["grey picture 0.jpg 0", "", "grey picture 1.jpg 1"], "line 2 is blank"),
        (["", "grey picture 0.jpg 0"], "line 1 is blank"),
        (["grey_picture_0.jpg"], "line 1 has one column, 'grey_picture_0.jpg'; expected 'name label'"),
        (["../val_map.txt 1"], "'../val_map.txt' is no file below the data set's folder"),
        ([], "is empty"),
    ],
)
def test_a_list_that_is_wrong(sut: Sut, lines: list[str], fragment: str) -> None:
    root = sut.pictures()
    (root / "val_map.txt").write_text("".join(f"{line}\n" for line in lines))

    done = sut.run("--backend", "null", "--dataset-path", root)

    assert done.code == 1
    assert "pictures/val_map.txt" in done.error
    assert fragment in done.error
    assert not sut.output.exists()


def test_a_folder_without_a_list(sut: Sut) -> None:
    root = sut.pictures()
    (root / "val_map.txt").unlink()

    done = sut.run("--backend", "null", "--dataset-path", root)

    assert done.code == 1
    assert f"there is no list {root}/val_map.txt" in done.error


def test_names_with_blanks_and_blank_lines_at_the_end_are_fine(sut: Sut) -> None:
    root = sut.pictures()
    with (root / "val_map.txt").open("a") as file:
        file.write("\n  \n")

    done = sut.run("--backend", "plain", "--dataset-path", root, "--accuracy")

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert done.result["accuracy"] == {"name": "top1", "value": 1 / 12, "count": 12, "target": None, "met": None}


def _jpeg(quality: int = 90) -> bytes:
    rough = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", rough, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def _png() -> bytes:
    return bytes(cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes())


def _damaged(data: bytes) -> bytes:
    """A restart marker where none belongs."""
    middle = len(data) // 2
    return data[:middle] + b"\xff\xd3" + data[middle + 2 :]


BAD_PICTURES: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "a truncated JPEG": (lambda: _jpeg()[: len(_jpeg()) // 2], "damaged picture: got a JPEG of "),
    "a JPEG without its last bytes": (lambda: _jpeg()[:-20], "that ends without an end-of-image marker"),
    "a JPEG of a header only": (lambda: _jpeg()[:20], "cannot decode: got a JPEG of 20 bytes"),
    "a damaged JPEG": (lambda: _damaged(_jpeg()), "damaged picture: got a JPEG of "),
    "text": (lambda: b"not a picture\n", "cannot decode: got text of 14 bytes that starts with 'not a picture"),
    "a truncated PNG": (lambda: _png()[: len(_png()) // 2], "got a PNG of"),
    "zeros": (lambda: bytes(100), "cannot decode: got 100 bytes that start with 00 00"),
}


@pytest.mark.first(3)
@pytest.mark.parametrize("what", BAD_PICTURES)
def test_a_picture_that_is_none_is_named_before_the_run(sut: Sut, what: str) -> None:
    make, fragment = BAD_PICTURES[what]
    root = sut.pictures()
    (root / "white picture 10.jpg").write_bytes(make())

    done = sut.run("--backend", "plain", "--dataset-path", root, "--time", "0.3")

    assert done.code == 1
    assert f"{root}/white picture 10.jpg (sample 10): " in done.error
    assert fragment in done.error
    assert (done.result["valid"], done.result["samples"]) == (False, 0)
    assert not list(sut.output.rglob("mlperf_log_*"))


def test_a_picture_of_no_bytes_is_named_with_its_line(sut: Sut) -> None:
    root = sut.pictures()
    (root / "white picture 10.jpg").write_bytes(b"")

    done = sut.run("--backend", "plain", "--dataset-path", root, "--time", "0.3")

    assert done.code == 1
    assert "1 of 12 files" in done.error
    assert "'white picture 10.jpg' (line 11: empty)" in done.error
    assert not sut.output.exists()


@pytest.mark.first(1)
@pytest.mark.parametrize("scenario", ["Offline", "SingleStream"])
def test_a_picture_that_is_none_leaves_no_accuracy(sut: Sut, scenario: str) -> None:
    root = sut.pictures()
    (root / "white picture 11.jpg").write_bytes(_jpeg()[:-20])

    done = sut.run("--backend", "plain", "--dataset-path", root, "--accuracy", "--scenario", scenario)

    assert done.code == 1
    assert f"{root}/white picture 11.jpg (sample 11): damaged picture" in done.error
    assert (done.result["valid"], done.result["accuracy"]) == (False, None)


def test_a_picture_that_is_not_used_may_be_none(sut: Sut) -> None:
    root = sut.pictures()
    (root / "white picture 11.jpg").write_bytes(b"")

    done = sut.run("--backend", "plain", "--dataset-path", root, "--count", "11", "--accuracy")

    assert (done.code, done.errors) == (0, [])
    assert done.result["accuracy"]["count"] == 11


@pytest.mark.first(3)
@pytest.mark.parametrize(
    ("line", "fragments"),
    [
        ("*.Server.target_qps=100", ["'*.Server.target_qps=100'", "a blank on both sides of '='"]),
        ("*.Server.target_qps= 100", ["a blank on both sides of '='"]),
        ("*.Server.target_qps = 100 # fast", ["comment behind a value"]),
        ("*.Server.target_qp = 100", ["unknown key 'target_qp'", "did you mean target_qps?"]),
        ("*.Sever.target_qps = 100", ["unknown scenario 'Sever'", "did you mean Server?"]),
        ("target_qps = 100", ["'target_qps'", "model.scenario.key"]),
        ("*.Offline.min_query_count = 1e3", ["takes a whole number", "'1e3'"]),
        ("*.*.qsl_rng_seed = 1", ["'qsl_rng_seed' is refused", "official"]),
        ("*.*.schedule_rng_seed = 1", ["'schedule_rng_seed' is refused"]),
        ("*.*.mode = 2", ["'mode' is refused", "--accuracy"]),
    ],
)
def test_a_line_of_user_conf_that_loadgen_would_misread(sut: Sut, line: str, fragments: list[str]) -> None:
    (sut.cwd / "mine.conf").write_text(f"# mine\n\n{line}\n")

    done = sut.run("--backend", "null", "--user_conf", "mine.conf", "--scenario", "Server", "--time", "0.3")

    assert done.code == 1
    assert done.error.startswith("mine.conf:3: ")
    assert all(fragment in done.error for fragment in fragments), done.error
    assert not sut.output.exists()


@pytest.mark.parametrize(
    ("option", "place", "fragment"),
    [
        ("--config", "pipe", "pipe: not a readable YAML file (Is a named pipe, not a file)"),
        ("--config", "/dev/zero", "/dev/zero: not a readable YAML file (Is a device, not a file)"),
        ("--user_conf", "/dev/zero", "(Is a device, not a file)"),
        ("--audit_conf", "pipe", "pipe: cannot be read as text (Is a named pipe"),
        ("--dataset-path", "pictures", "pictures/6.jpg (sample 0): Is a named pipe, not a file"),
    ],
)
def test_what_never_ends_is_not_waited_for(sut: Sut, option: str, place: str, fragment: str) -> None:
    (sut.cwd / "pictures").mkdir()
    os.mkfifo(sut.cwd / "pictures/6.jpg")
    os.mkfifo(sut.cwd / "pipe")
    dataset = ["--dataset", "folder"] if option == "--dataset-path" else []

    done = sut.run("--backend", "plain", option, place, "--time", "0.3", *dataset)

    assert done.code == 1
    assert fragment in done.error


def test_an_audit_config_that_lies_about_is_not_obeyed(sut: Sut) -> None:
    (sut.cwd / "audit.config").write_text("*.*.mode = 2\n*.*.min_query_count = 1\n")
    arguments = ["--backend", "plain", "--dataset-path", sut.pictures(), "--accuracy"]

    done = sut.run(*arguments)

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert "audit.config in the current directory is not obeyed" in done.err
    assert done.result["accuracy"]["count"] == 12

    # Obeyed, the same file would make a performance run of it, which leaves nothing to score.
    done = sut.run(*arguments, "--audit_conf", "audit.config", "--set", "time_s=0.3")

    assert done.code == 1
    assert "audit.config: its mode 2 (performance) is not the run's (accuracy)" in done.error


def _file(sut: Sut) -> Path:
    (sut.cwd / "place").write_text("occupied")
    return Path("place")


def _below_a_file(sut: Sut) -> Path:
    return _file(sut) / "results"


def _in_proc(sut: Sut) -> Path:
    return Path("/proc/results")


def _link_to_nowhere(sut: Sut) -> Path:
    (sut.cwd / "link").symlink_to("nowhere/at/all")
    return Path("link")


@pytest.mark.parametrize("place", [_file, _below_a_file, _in_proc, _link_to_nowhere])
def test_a_place_that_is_no_directory(sut: Sut, place: Callable[[Sut], Path]) -> None:
    output = place(sut)

    done = sut.run("--backend", "null", "--output", output, "--time", "0.3")

    assert done.code == 1
    assert done.error.startswith(f"{output}/")
    assert "cannot be written (" in done.error
    assert "choose another --output" in done.error


def test_a_place_where_no_byte_can_be_written(sut: Sut) -> None:
    none = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"

    done = sut.run("--backend", "null", "--time", "0.3", prologue=none)

    assert done.code == 1
    assert "cannot be written (File too large)" in done.error
    assert [path for path in sut.output.rglob("*") if path.is_file()] == []


def test_a_disk_without_room_for_the_logs(sut: Sut) -> None:
    full = (
        "import shutil\n"
        "found = shutil.disk_usage\n"
        "shutil.disk_usage = lambda path: type(found(path))(2**30, 2**30 - 2**20, 2**20)"
    )

    done = sut.run("--backend", "null", "--time", "0.3", prologue=full)

    assert done.code == 1
    assert "1 MiB free, 64 MiB needed" in done.error
    assert done.results == {}


@pytest.mark.parametrize(
    ("option", "fragment"),
    [("ro", "cannot be written (Read-only file system)"), ("size=8m", "MiB free, 64 MiB needed")],
)
def test_a_file_system_that_does_not_do(sut: Sut, option: str, fragment: str) -> None:
    sut.output.mkdir()
    command = f'mount -t tmpfs -o {option} none "$0" && exec "$@"'
    wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", command, str(sut.output)]
    if not shutil.which("unshare") or subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("no user may mount here; the tests above and below do without")

    done = sut.run("--backend", "null", "--time", "0.3", wrapper=wrapper)

    assert done.code == 1
    assert fragment in done.error


def test_a_directory_that_may_not_be_written(sut: Sut) -> None:
    sut.output.mkdir(mode=0o555)
    # Root may write anywhere by its capabilities, so the process gives up all of them.
    humble = (
        "import ctypes\n"
        "header = (ctypes.c_uint32 * 2)(0x20080522, 0)\n"
        "assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0"
    )

    done = sut.run("--backend", "null", "--time", "0.3", prologue=humble)

    assert done.code == 1
    assert "cannot be written (Permission denied)" in done.error


def test_what_is_refused_does_not_touch_earlier_results(sut: Sut) -> None:
    (sut.cwd / "bad.conf").write_text("nonsense\n")
    arguments = ["--backend", "null", "--time", "0.3"]
    assert sut.run(*arguments).code == 0
    before = tree(sut.output)

    for flag, word in (("--user_conf", "bad.conf"), ("--scenario", "Ofline"), ("--device", "cpuu")):
        assert sut.run(*arguments, flag, word).code == 1, flag

    assert tree(sut.output) == before


def test_a_second_run_sets_the_first_aside(sut: Sut) -> None:
    arguments = ["--backend", "null", "--time", "0.3"]
    first = sut.run(*arguments)
    second = sut.run(*arguments)
    third = sut.run(*arguments, "--overwrite")

    assert (first.code, second.code, third.code) == (0, 0, 0)
    assert len(second.results) == len(third.results) == 2
    [aside] = set(second.results) - set(first.results)
    assert second.results[aside] == third.results[aside] == first.result
    assert aside.parent.name.startswith("performance.2")


@pytest.mark.first(1)
@pytest.mark.parametrize("level", range(4), ids=["mode", "scenario", "configuration", "model"])
def test_nothing_is_removed_behind_a_link(sut: Sut, level: int) -> None:
    arguments = ["--backend", "null", "--time", "0.3"]
    first = sut.run(*arguments)
    [result] = sut.output.rglob("result.json")
    place = result.parents[level]
    place.rename(sut.cwd / "elsewhere")
    place.symlink_to(sut.cwd / "elsewhere")

    done = sut.run(*arguments, "--overwrite")

    assert done.code == 1
    assert f"{place.name} is a link to {sut.cwd}/elsewhere" in done.error
    assert tree(sut.cwd / "elsewhere")
    assert sut.run(*arguments).code == first.code == 0


def test_a_link_to_nowhere_in_the_place_of_a_result_is_set_aside(sut: Sut) -> None:
    arguments = ["--backend", "null", "--time", "0.3"]
    first = sut.run(*arguments)
    [result] = sut.output.rglob("result.json")
    shutil.rmtree(result.parent)
    result.parent.symlink_to("nowhere")

    second = sut.run(*arguments)

    assert (first.code, second.code, second.errors) == (0, 0, [])
    assert result.is_file()


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("time_s: 1\ntime_s: 2\n", "line 2: the key 'time_s' stands twice"),
        ("a: " + "[" * 5000, "it is nested too deeply"),
        ('output: "a\\0b"', "output: expected no NUL character"),
        ("count: " + "9" * 5000, "a whole number of 5000 digits"),
    ],
    ids=["a key twice", "nested", "NUL", "digits"],
)
def test_a_config_that_is_none(sut: Sut, text: str, fragment: str) -> None:
    (sut.cwd / "mine.yaml").write_text(text)

    done = sut.run("--backend", "null", "--config", "mine.yaml")

    assert done.code == 1
    assert fragment in done.error


def bytes_folder(place: Path) -> Path:
    """A new folder in ``place`` whose name is no UTF-8."""
    folder = place / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    return folder


def test_names_that_are_no_utf8_lose_nothing(sut: Sut) -> None:
    root = sut.pictures(None)
    odd = bytes_folder(sut.cwd)
    root = root.rename(odd / "pictures")
    name = os.fsdecode(b"cr\xe8me 0.jpg")
    (root / "grey picture 0.jpg").rename(root / name)
    lines = (root / "val_map.txt").read_text().replace("grey picture 0.jpg", name)
    (odd / os.fsdecode(b"list\xe9.txt")).write_text(lines, errors="surrogateescape")
    write_own(odd / os.fsdecode(b"mod\xe8le.onnx"))
    (odd / "user.conf").write_text("# nothing\n")
    (odd / "audit.config").write_text("*.*.accuracy_log_sampling_target = 5\n")

    done = sut.run(
        *("--model", odd / os.fsdecode(b"mod\xe8le.onnx"), "--model-name", "efficientnet-lite0", "--threads", "1"),
        *("--dataset-path", root, "--dataset-list", odd / os.fsdecode(b"list\xe9.txt"), "--output", odd / "output"),
        *("--scenario", "Offline", "--time", "0.3", "--cache", "1", "--user_conf", odd / "user.conf"),
        *("--audit_conf", odd / "audit.config"),
        SUT_CACHE_DIR=str(bytes_folder(odd)),
    )

    assert (done.code, done.errors, done.left) == (0, [], [])
    assert f"files: {sut.cwd}/caf\\xe9/output/efficientnet-lite0/" in done.out.replace("\n", "")
    [file] = odd.rglob("result.json")
    text = file.read_bytes().decode()
    result = json.loads(text)
    assert json.dumps(result, ensure_ascii=False).encode()  # no half of a character that strict readers refuse
    assert (result["valid"], result["config"]["output"]) == (True, f"{sut.cwd}/caf\\xe9/output")
    assert "caf\\xe9/caf\\xe9" in next(note for note in result["notes"] if "tensor cache" in note)
    for log in ("mlperf_log_summary.txt", "mlperf_log_detail.txt", "results.json"):
        assert file.with_name(log).is_file()


def test_a_picture_whose_name_is_no_utf8_is_named(sut: Sut) -> None:
    root = sut.pictures()
    name = os.fsdecode(b"bad\x1b[2J\n\xe8.jpg")
    (root / name).write_bytes(b"no picture")

    done = sut.run("--backend", "plain", "--dataset", "folder", "--dataset-path", root, "--time", "0.3")

    assert done.code == 1
    assert f"{root}/bad\\x1b[2J\\n\\xe8.jpg (sample 0): cannot decode" in done.error
    assert "\\xe8.jpg" in done.result["first_error"]
    assert "\x1b" not in done.out + done.err


def test_a_cache_that_others_may_write_keeps_no_code(sut: Sut) -> None:
    cache = sut.cwd / "cache"
    cache.mkdir()
    cache.chmod(0o777)

    done = sut.run("--backend", "null", "--time", "0.3", SUT_CACHE_DIR=str(cache))

    assert (done.code, done.errors) == (0, [])
    assert [line for line in done.err.splitlines() if f"others may write to '{cache}'" in line]
    assert list((cache / "numba").iterdir()) == []
