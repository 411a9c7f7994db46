"""run_local.sh: which extras a command line asks for and what it calls, the set-up replaced; a set-up interrupted."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.children import CHECKOUT, Finished, run

ALWAYS = {"models", "opencv"}
COMPARE = "compare --config run.yaml"
FROM = "run --from run.yaml"
SMI = {
    "none": "",
    "11.4": "CUDA Version: 11.4",
    "12.8": "CUDA Version: 12.8",
    "13.0": "| NVIDIA-SMI 580.82  Driver Version: 580.82  CUDA Version: 13.0 |",
    "13.3": "KMD Version: 610.1  CUDA UMD Version: 13.3",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the script whose set-up only prints the extras, and whose Python the words that it is given."""
    shutil.copy(CHECKOUT / "run_local.sh", tmp_path)
    (tmp_path / "tools").mkdir()
    setup = 'VENV_PYTHON=echo\nsetup_env() { echo "$@"; }\nuse_checkout() { :; }\n'
    (tmp_path / "tools" / "setup_env.sh").write_text((CHECKOUT / "tools/setup_env.sh").read_text() + setup)
    (tmp_path / "plugins").mkdir()
    shutil.copy(CHECKOUT / "plugins/extras.txt", tmp_path / "plugins")
    shutil.copytree(CHECKOUT / "sut/cli/commands", tmp_path / "sut/cli/commands")
    for name in ("compare", "report", "show", "check_log"):
        (tmp_path / "sut/cli/commands" / f"{name}.py").touch()
    return tmp_path


def finished(checkout: Path, line: str, cuda: str, **environment: str) -> Finished:
    """The script, on a machine whose driver has this CUDA."""
    program = checkout / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{f'echo {SMI[cuda]!r}' if SMI[cuda] else 'exit 9'}\n")
    program.chmod(0o755)
    environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    return run("bash", "./run_local.sh", *line.split(), cwd=checkout, environment=environment)


def start(checkout: Path, line: str, cuda: str = "none", extra_ops: str = "") -> list[list[str]]:
    """The lines that the script prints, as words: the extras, then what Python is given."""
    done = finished(checkout, line, cuda, EXTRA_OPS=extra_ops)
    assert (done.code, done.err) == (0, "")
    return [each.split() for each in done.out.splitlines()]


def extras(checkout: Path, line: str, cuda: str = "none", extra_ops: str = "") -> set[str]:
    """What the script installs beyond ``ALWAYS``."""
    found = start(checkout, line, cuda, extra_ops)[0]
    assert len(found) == len(set(found))
    assert set(found) >= ALWAYS
    return set(found) - ALWAYS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"onnxruntime"}),
        ("openvino efficientnet-lite0 cpu", {"openvino"}),
        ("null", set()),
        ("--backend=openvino --precision int8", {"openvino", "nncf"}),
        ("onnxruntime efficientnet-lite1 cpu", {"onnxruntime", "more-models"}),
        ("--model efficientnet-lite2", {"onnxruntime", "more-models"}),
        ("--model=efficientnet-lite2", {"onnxruntime", "more-models"}),
        ("onnxruntime efficientnet-lite1 --model resnet50", {"onnxruntime"}),
        ("onnxruntime yolo11 cpu --weights random --scenario SingleStream", {"onnxruntime", "numba", "detection"}),
        ("openvino yolo-99 cpu", {"openvino", "numba", "detection"}),
        ("openvino centerface cpu", {"openvino", "numba", "detection"}),
        ("run --model planted-photos --identify efficientnet-lite1", {"onnxruntime", "numba", "more-models"}),
        ("run --identify-backend openvino --identify_precision int8", {"onnxruntime", "openvino", "nncf"}),
        ("run --channel shared --identify efficientnet-lite0", {"onnxruntime"}),
        ("run --channel redis", {"onnxruntime", "redis"}),
        ("serve --backend openvino", {"openvino", "serve", "kserve"}),
        ("run --serve grpc", {"onnxruntime", "serve", "kserve"}),
        ("compare --vary serve=none,grpc", {"onnxruntime", "serve", "kserve"}),
        ("run --backend kserve --device grpc://host:8001", {"kserve"}),
        ("run --channel=rediss://me@host:6379/0", {"onnxruntime", "redis"}),
        ("run --channel unix:///run/redis.sock", {"onnxruntime", "redis"}),
        ("run --channel kafka://one:9092,two:9092", {"onnxruntime", "kafka"}),
        ("compare --vary channel=none,redis,kafka://127.0.0.1:9092", {"onnxruntime", "redis", "kafka"}),
        ("study brokers", {"onnxruntime", "numba", "redis", "kafka"}),
        ("study brokers --model planted --backend openvino", {"openvino", "numba", "detection", "redis", "kafka"}),
        ("onnxruntime retinanet cpu --accuracy --time 60 --qps 100", {"onnxruntime", "detection"}),
        ("--preprocess fused", {"onnxruntime", "numba"}),
        ("--preprocess fused --preprocess opencv", {"onnxruntime"}),
        ("--set backend=openvino --set=precision=int8", {"openvino", "nncf"}),
        ("--set backend=openvino --backend null", set()),
        ("run --backend openvino", {"openvino"}),
        ("tune openvino efficientnet-lite1 --space precision=fp32,int8", {"openvino", "nncf", "more-models"}),
        ("boundary --preprocess=fused", {"onnxruntime", "numba"}),
        ("parity --preprocess opencv,fused,dali", {"onnxruntime", "numba", "dali"}),
        ("compare --model my.onnx", {"onnxruntime", "openvino", "numba", "nncf"}),
        ("compare --backend openvino", {"openvino", "numba", "nncf"}),
        ("compare --preprocess opencv,dali", {"onnxruntime", "dali"}),
        ("compare --backend openvino,null --precision fp32,int8", {"openvino", "nncf"}),
        ("compare --vary lanes=1,2", {"onnxruntime"}),
        ("compare --help", {"onnxruntime"}),
        ("study ladder", {"pytorch", "openvino", "numba", "dali", "nncf"}),
        ("export triton --boundary jpeg --preprocess fused", {"onnxruntime", "numba", "kserve", "serve"}),
        ("dataset imagenet /data", {"imagenet"}),
        ("dataset sums /data", set()),
        ("doctor --json", {"onnxruntime"}),
        ("kernels check", set()),
        ("report results", set()),
        ("show --backend openvino", set()),
        ("verify my-gpu.zip", set()),
        ("accuracy log --val-map list.txt", set()),
        ("accuracy log --annotations list.json", {"detection"}),
        ("--dataset coco --dataset-path /data", {"onnxruntime", "detection"}),
        ("null --set dataset=openimages", {"detection"}),
        ("null --dataset imagenet", set()),
        ("check-log output", set()),
        ("submit --check rehearsal", set()),
        ("submit --rehearse", {"onnxruntime"}),
        ("submit --rehearse --backend openvino", {"openvino"}),
    ],
)
def test_extras_by_the_words_of_the_command_line(checkout: Path, line: str, expected: set[str]) -> None:
    assert extras(checkout, line) == expected


def test_extra_ops_count_too(checkout: Path) -> None:
    assert extras(checkout, "null", extra_ops="--preprocess fused --precision=int8") == {"numba", "nncf"}


@pytest.mark.parametrize(
    ("preprocess", "cuda", "expected"),
    [
        ("dali", "none", {"dali"}),
        ("dali", "12.8", {"dali-cu12"}),
        ("dali-resize", "13.0", {"dali"}),
        ("dali-gpu", "none", {"dali"}),
        ("dali-gpu", "11.4", {"dali"}),
        ("dali-gpu", "12.8", {"dali-cu12", "gpu-cu12"}),
        ("dali-gpu-resize", "12.8", {"dali-cu12", "gpu-cu12"}),
        ("dali-gpu-resize", "13.0", {"dali", "gpu-cu13"}),
        ("cuda", "none", set()),
        ("cuda", "12.8", {"gpu-cu12"}),
        ("cuda", "13.0", {"gpu-cu13"}),
        ("cuda", "13.3", {"gpu-cu13"}),
        ("opencv", "13.0", set()),
    ],
)
def test_packages_for_a_gpu_by_the_drivers_cuda(checkout: Path, preprocess: str, cuda: str, expected: set[str]) -> None:
    assert extras(checkout, f"null --preprocess {preprocess}", cuda) == expected


@pytest.mark.parametrize(
    ("line", "cuda", "expected"),
    [
        ("onnxruntime resnet50 gpu", "12.8", {"onnxruntime-cu12", "gpu-cu12"}),
        ("onnxruntime resnet50 cuda:1", "13.3", {"onnxruntime-cu13", "gpu-cu13"}),
        ("--device=GPU", "13.0", {"onnxruntime-cu13", "gpu-cu13"}),
        ("tune onnxruntime resnet50 gpu", "13.0", {"onnxruntime-cu13", "gpu-cu13"}),
        ("compare --vary device=cpu,cuda", "13.0", {"onnxruntime-cu13", "gpu-cu13"}),
        ("onnxruntime resnet50 cpu", "13.0", {"onnxruntime"}),
        ("onnxruntime", "13.0", {"onnxruntime"}),
        ("onnxruntime resnet50 cpu --preprocess cuda", "13.0", {"onnxruntime", "gpu-cu13"}),
        ("openvino resnet50 gpu", "none", {"openvino"}),
    ],
)
def test_a_backend_is_for_the_device_that_is_asked_for(
    checkout: Path, line: str, cuda: str, expected: set[str]
) -> None:
    assert extras(checkout, line, cuda) == expected


def test_the_report_of_a_gpu_has_what_it_measures_where_there_is_one(checkout: Path) -> None:
    assert extras(checkout, "report gpu", "none") == extras(checkout, "report gpu", "11.4") == set()
    assert extras(checkout, "report gpu --budget 900", "13.0") >= {"onnxruntime-cu13", "gpu-cu13", "dali", "nncf"}


def test_the_device_of_a_config_file_counts(checkout: Path) -> None:
    (checkout / "run.yaml").write_text("device: gpu\n")

    assert extras(checkout, "--config run.yaml", "12.8") == {"onnxruntime-cu12", "gpu-cu12"}
    assert extras(checkout, "--config run.yaml --device cpu", "12.8") == {"onnxruntime"}


def test_an_audit_has_what_its_runs_had(checkout: Path) -> None:
    folder = checkout / "out" / "config" / "Offline" / "performance"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{\n "backend": "openvino",\n "preprocess": "fused"\n}\n')

    for line in ("audit out/config", "audit --test TEST01 out/config/Offline"):
        assert extras(checkout, line) == {"openvino", "numba"}


@pytest.mark.parametrize(
    ("cuda", "said"),
    [
        ("none", "the device gpu cannot be used: no NVIDIA driver"),
        ("11.4", "the device gpu needs a driver for CUDA 12 or newer, and this one has CUDA 11: update the driver"),
    ],
)
def test_without_a_driver_nothing_is_installed_for_a_gpu(checkout: Path, cuda: str, said: str) -> None:
    done = finished(checkout, "onnxruntime resnet50 gpu", cuda)

    assert (done.code, done.out) == (2, ""), "neither set-up nor sut is called"
    assert done.err.startswith(f"run_local.sh: {said}")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(("preprocess", "added"), [("cuda", " gpu-cu13 pycuda"), ("opencv", "")])
def test_who_insists_on_pycuda_gets_it_with_what_is_for_a_gpu(checkout: Path, preprocess: str, added: str) -> None:
    done = finished(checkout, f"null --preprocess {preprocess}", "13.0", SUT_CUDA_LIBRARY="pycuda")

    assert done.out.splitlines()[0] == f"models opencv{added}"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("backend: openvino\nprecision: int8\n", "--config run.yaml", {"openvino", "nncf"}),
        ("backend: \"null\"  # no model\npreprocess : 'fused'\r\n", "--config=run.yaml", {"numba"}),
        ("model: efficientnet-lite1\nbackend: openvino\n", "null --config run.yaml", {"more-models"}),
        ("model: efficientnet-lite1\n", "null resnet50 --config run.yaml", set()),
        ("identify: efficientnet-lite1\nchannel: redis\n", "null --config run.yaml", {"more-models", "redis"}),
        ("identify_backend: openvino\n", "null --config run.yaml --channel kafka", {"openvino", "kafka"}),
        ("# backend: openvino\nname:\n  backend: openvino\n", "--config run.yaml", {"onnxruntime"}),
        ("backend:\n", "--config run.yaml", {"onnxruntime"}),
        ("backend: openvino\n", "--config missing.yaml", {"onnxruntime"}),
        ("matrix:\n  backend: [openvino, 'null']\n  precision:\n  - fp32\n  - int8\n", COMPARE, {"openvino", "nncf"}),
        ("matrix:\n  lanes: [1, 2]\n", COMPARE, {"onnxruntime"}),
        ("time_s: 3\n", COMPARE, {"onnxruntime", "openvino", "numba", "nncf"}),
        (
            '{\n "backend": "openvino",\n "config": {\n  "backend": "x",\n  "precision": "int8"\n }\n}\n',
            FROM,
            {"openvino"},
        ),
    ],
)
def test_a_config_file_counts_where_no_flag_does(checkout: Path, text: str, line: str, expected: set[str]) -> None:
    (checkout / "run.yaml").write_text(text)

    assert extras(checkout, line) == expected


@pytest.mark.parametrize(
    ("line", "called"),
    [
        ("", "run --demo"),
        (
            "null efficientnet-lite0 cpu --time 3",
            "run --backend null --model efficientnet-lite0 --device cpu --time 3 A B",
        ),
        ("run", "run A B"),
        ("run openvino", "run --backend openvino A B"),
        ("--backend tune", "run --backend tune A B"),
        ("tune openvino resnet50 --json", "tune openvino resnet50 --json A B"),
        ("boundary --time 3", "boundary --time 3 A B"),
        ("plan --rate 3", "plan --rate 3 A B"),
        ("dataset imagenet /data", "dataset imagenet /data"),
        ("check-log folder", "check-log folder"),
        ("show results more", "show results more"),
        ("doctor", "doctor"),
        ("--version", "--version"),
    ],
)
def test_a_command_of_sut_is_called_and_else_run(checkout: Path, line: str, called: str) -> None:
    _, words = start(checkout, line, extra_ops="A B" if called.endswith("A B") else "")

    assert words == ["-P", "-m", "sut", *called.split()]


def test_what_is_printed_to_be_typed_starts_run_local() -> None:
    folders = {"docs": "*.md", "sut": "**/*.py", "preprocess": "*.py"}
    files = [file for folder, pattern in folders.items() for file in (CHECKOUT / folder).glob(pattern)]
    typed = re.compile(r"(?:Example: |[Rr]un it: |with: |\.venv/bin/)sut .*|^ *sut [a-z]+ .*--.*", re.M)

    assert [(file.name, found) for file in files for found in typed.findall(file.read_text(encoding="utf-8"))] == []


def test_help_names_every_command(checkout: Path) -> None:
    help_text = " ".join(word for words in start(checkout, "--help") for word in words)

    known = (
        "run, doctor, accuracy, audit, boundary, breakdown, check-log, compare, dataset, export, kernels, parity, plan, "
        "report, serve, show, study, submit, sweep, tune, verify, whatif"
    )
    assert f"COMMAND is one of {known}: see" in help_text
    assert help_text.endswith("-P -m sut run --help")


STOPPED = """
ROOT=$PWD which=$2
. "$1/tools/setup_env.sh"
make_venv() { kill -s "$which" $$; step sleep 10; }
setup_env onnxruntime
"""


@pytest.mark.parametrize("which", ["INT", "TERM", "HUP", "QUIT"])
def test_a_set_up_that_is_interrupted_says_so(tmp_path: Path, which: str) -> None:
    for file in ("setup.py", "constraints.txt", "plugins/extras.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / file, tmp_path / file)
    # What this test runner ignores, a shell could not hear.
    heard = ("env", f"--default-signal={which}")

    done = run(*heard, "bash", "-c", STOPPED, "set-up", CHECKOUT, which, cwd=tmp_path)

    assert done.code == 130
    assert done.err == "set-up: set-up interrupted; the next start finishes it\n"


@pytest.mark.parametrize(
    ("files", "code"),
    [(("nvcc", "g++", "../include/curand.h"), 0), (("nvcc", "g++"), 2), (("g++", "../include/curand.h"), 2), ((), 2)],
)
def test_pycuda_is_not_asked_of_pip_where_it_cannot_be_compiled(
    tmp_path: Path, files: tuple[str, ...], code: int
) -> None:
    for folder in ("bin", "include"):
        (tmp_path / folder).mkdir()
    for name in files:
        (tmp_path / "bin" / name).touch(0o755)
    line = 'ROOT=$PWD; . "$1/tools/setup_env.sh"; check_compilers models; PATH=$PWD/bin; check_compilers pycuda'

    done = run(shutil.which("bash") or "bash", "-c", line, "set-up", CHECKOUT, cwd=tmp_path)

    assert done.code == code
    assert ("apt install g++ nvidia-cuda-toolkit" in done.err) == (code != 0)
