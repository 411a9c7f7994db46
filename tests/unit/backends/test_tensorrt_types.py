"""TensorRT's code against the types of its interface, which tensorrt-stubs has of release 10.13.

mypy takes these stubs as they are installed for no types at all, and cannot read them: they were generated, with
parameters called ``in`` and a variable ``bool``. So a copy is mended here.
"""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.children import CHECKOUT, run_python

_MENDED = ((r"\bin: ", "in_: "), (r"channel_axis: int\)", "channel_axis: int = ...)"), (r"(?m)^bool: ", "bool_: "))
_PACKAGES = ("tensorrt", "tensorrt_bindings")


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stubs")
    for package in _PACKAGES:
        (folder / package).mkdir()
        for source in Path(str(distribution("tensorrt-stubs").locate_file(package))).glob("*.pyi"):
            text = source.read_text()
            for was, is_now in _MENDED:
                text = re.sub(was, is_now, text)
            (folder / package / source.name).write_text(text)
    return folder


def errors_in(files: list[Path], stubs: Path) -> list[str]:
    """What mypy finds in these files; what is still wrong in the stubs does not count."""
    options = ("--follow-imports", "silent", "--cache-dir", stubs / "cache")
    done = run_python("-m", "mypy", *options, *files, cwd=CHECKOUT, MYPYPATH=str(stubs))
    lines = done.out.splitlines()
    assert lines[-1].endswith(f"(checked {len(files)} source file{'s' * (len(files) > 1)})"), done.out + done.err
    return [line for line in lines if not line.startswith(str(stubs)) and ": error: " in line]


@pytest.mark.slow
def test_what_is_called_is_there_and_takes_what_it_is_given(stubs: Path, tmp_path: Path) -> None:
    files = sorted((CHECKOUT / "backends").glob("tensorrt*.py"))
    assert len(files) == 5
    assert errors_in(files, stubs) == []

    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import tensorrt\n"
        "def start(context: tensorrt.IExecutionContext, config: tensorrt.IBuilderConfig) -> None:\n"
        "    context.execute_async_v4(1)\n"
        "    context.set_tensor_address(1, 'name')\n"
        "    config.progress_monitor = config\n"
    )
    assert [re.sub(".*py:", "", line).partition(":")[0] for line in errors_in([wrong], stubs)] == ["3", "4", "4", "5"]
