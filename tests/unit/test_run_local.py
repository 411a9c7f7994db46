"""run_local.sh: which extras a command line asks for, the set-up and the run replaced; and a set-up interrupted."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
ALWAYS = {"models", "opencv"}
SMI = {
    "none": "",
    "11.4": "CUDA Version: 11.4",
    "12.8": "CUDA Version: 12.8",
    "13.0": "| NVIDIA-SMI 580.82  Driver Version: 580.82  CUDA Version: 13.0 |",
    "13.3": "KMD Version: 610.1  CUDA UMD Version: 13.3",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the script whose set-up only prints the extras."""
    shutil.copy(CHECKOUT / "run_local.sh", tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "setup_env.sh").write_text('setup_env() { echo "$@"; exit 0; }\n')
    return tmp_path


def extras(checkout: Path, line: str, cuda: str = "none", extra_ops: str = "") -> set[str]:
    """What the script installs beyond ``ALWAYS``."""
    program = checkout / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{f'echo {SMI[cuda]!r}' if SMI[cuda] else 'exit 9'}\n")
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "EXTRA_OPS": extra_ops}
    command = ["bash", "./run_local.sh", *line.split()]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = done.stdout.split()
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
        ("--preprocess fused", {"onnxruntime", "numba"}),
        ("--preprocess fused --preprocess opencv", {"onnxruntime"}),
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
        ("dali", "12.8", {"dali-cuda12"}),
        ("dali-resize", "13.0", {"dali"}),
        ("dali-gpu", "none", {"dali"}),
        ("dali-gpu", "11.4", {"dali"}),
        ("dali-gpu", "12.8", {"dali-cuda12", "cuda12"}),
        ("dali-gpu-resize", "12.8", {"dali-cuda12", "cuda12"}),
        ("dali-gpu-resize", "13.0", {"dali", "cuda13"}),
        ("cuda", "none", set()),
        ("cuda", "12.8", {"cuda12"}),
        ("cuda", "13.0", {"cuda13"}),
        ("cuda", "13.3", {"cuda13"}),
        ("opencv", "13.0", set()),
    ],
)
def test_packages_for_a_gpu_by_the_drivers_cuda(checkout: Path, preprocess: str, cuda: str, expected: set[str]) -> None:
    assert extras(checkout, f"null --preprocess {preprocess}", cuda) == expected


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("backend: openvino\nprecision: int8\n", "--config run.yaml", {"openvino", "nncf"}),
        ("backend: \"null\"  # no model\npreprocess : 'fused'\r\n", "--config=run.yaml", {"numba"}),
        ("model: efficientnet-lite1\nbackend: openvino\n", "null --config run.yaml", {"more-models"}),
        ("model: efficientnet-lite1\n", "null resnet50 --config run.yaml", set()),
        ("# backend: openvino\nname:\n  backend: openvino\n", "--config run.yaml", {"onnxruntime"}),
        ("backend:\n", "--config run.yaml", {"onnxruntime"}),
        ("backend: openvino\n", "--config missing.yaml", {"onnxruntime"}),
    ],
)
def test_a_config_file_counts_where_no_flag_does(checkout: Path, text: str, line: str, expected: set[str]) -> None:
    (checkout / "run.yaml").write_text(text)

    assert extras(checkout, line) == expected


STOPPED = """
ROOT=$PWD which=$2
. "$1/tools/setup_env.sh"
make_venv() { kill -s "$which" $$; step sleep 10; }
setup_env onnxruntime
"""


@pytest.mark.parametrize("which", ["INT", "TERM", "HUP", "QUIT"])
def test_a_set_up_that_is_interrupted_says_so(tmp_path: Path, which: str) -> None:
    shutil.copy(CHECKOUT / "setup.py", tmp_path)
    shutil.copy(CHECKOUT / "constraints.txt", tmp_path)
    # What this test runner ignores, a shell could not hear.
    command = ["env", f"--default-signal={which}", "bash", "-c", STOPPED, "set-up", str(CHECKOUT), which]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == 130
    assert done.stderr == "set-up: set-up interrupted; the next start finishes it\n"
