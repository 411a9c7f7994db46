"""A backend of the checkout is its own file and a line of plugins/extras.txt: nothing else is changed for it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.children import CHECKOUT, inherited, run

LINE = "backend     echo  backends.echo:Echo  echo  -  9  echo-runtime>=3,<4 (echo_runtime)\n"
BACKEND = """
from backends.null import Null

class Echo(Null):
    name = "echo"
"""
SETUP = 'VENV_PYTHON=true\nsetup_env() { echo "$@"; }\nuse_checkout() { :; }\n'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with a backend more; its set-up only prints the extras."""
    copy = tmp_path_factory.mktemp("checkout")
    for package in ("sut", "backends", "preprocess", "kernels", "plugins", "tools"):
        shutil.copytree(CHECKOUT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "run_local.sh"):
        shutil.copy(CHECKOUT / file, copy)
    (copy / "tools/setup_env.sh").write_text(SETUP)
    (copy / "backends/echo.py").write_text(BACKEND)
    with (copy / "plugins/extras.txt").open("a") as table:
        table.write(LINE)
    return copy


def said(checkout: Path, *command: str | Path, code: int = 0) -> str:
    done = run(*command, cwd=checkout, environment={**inherited(), "PYTHONPATH": str(checkout)})
    assert done.code == code, done.err
    return done.out + done.err


def sut(checkout: Path, *arguments: str | Path, code: int = 0) -> str:
    return said(checkout, sys.executable, "-P", "-m", "sut", *arguments, code=code)


def test_the_first_start_installs_its_extra(checkout: Path) -> None:
    assert said(checkout, "bash", "run_local.sh", "echo", "resnet50").split() == ["models", "opencv", "echo"]
    assert "echo-runtime>=3,<4\n" in said(checkout, sys.executable, "-I", "tools/lock.py", "requirements", "echo")


def test_setup_py_has_its_extra(checkout: Path) -> None:
    said(checkout, sys.executable, "setup.py", "-q", "egg_info")

    assert "\n[echo]\necho-runtime<4,>=3\n" in (checkout / "loadgen_vision_sut.egg-info/requires.txt").read_text()


def test_the_doctor_has_a_row_for_its_package(checkout: Path) -> None:
    rows = {row["name"]: row for row in json.loads(sut(checkout, "doctor", "--json"))["rows"]}

    row = rows["echo-runtime"]
    assert (row["status"], row["found"]) == ("absent", "not installed; for: backend echo")
    assert row["hint"].endswith(f"-m pip install -e '{checkout}[echo]'")


def test_the_help_and_the_error_name_it(checkout: Path) -> None:
    assert "simulated, echo, or a " in " ".join(sut(checkout, "run", "--help").split())
    error = sut(checkout, "run", "--backend", "ecko", "--model", "resnet50", code=1)
    assert "unknown backend 'ecko'; did you mean echo? known: " in error


@pytest.mark.slow
def test_it_runs_and_its_result_has_its_packages_version(checkout: Path, tmp_path: Path) -> None:
    sut(checkout, "run", "--backend", "echo", "--time", "0.1", "--output", tmp_path)

    [path] = tmp_path.rglob("result.json")
    result = json.loads(path.read_text())
    assert result["backend"] == "echo"
    assert result["versions"]["echo-runtime"] is None
