"""Python, the command line and other programs in processes of their own, as a user starts them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]
LIMIT_S = 300.0
"""Against hangs only: a run of these tests takes seconds on an idle machine."""
GONE_S = 10.0
"""How long the kernel may take to end processes that were killed."""

_NOT_INHERITED = (
    *("DATA_DIR", "MODEL_DIR", "OUTPUT_DIR", "EXTRA_OPS", "NUMBA_CACHE_DIR"),
    *("PYTHONPATH", "PYTHONHOME", "PIP_NO_INDEX"),
)


@dataclass(frozen=True, slots=True)
class Finished:
    """A child that has ended. ``results`` are its result.json files by their place under the output directory."""

    code: int
    out: str
    err: str
    seconds: float
    left: list[str]
    """Command lines of processes that it left behind."""
    results: Mapping[Path, dict[str, Any]] = field(default_factory=dict)

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that are errors, without their first word."""
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]

    @property
    def error(self) -> str:
        """The one line about what went wrong; there is no other, no traceback, nothing running."""
        assert len(self.errors) == 1, self.err
        assert "Traceback" not in self.out + self.err
        assert self.left == []
        return self.errors[0]

    @property
    def result(self) -> dict[str, Any]:
        """The one result there is."""
        [result] = self.results.values()
        return result


class Running:
    """A child that goes on. Its processes carry a mark in their environment, whatever session they are in."""

    def __init__(
        self, command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], output: Path | None
    ) -> None:
        self._output = output
        self._mark = f"SUT_TEST_RUN={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self._begin = time.monotonic()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**environment, name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    def wait_until(self, done: Callable[[], object]) -> None:
        """Wait until something is so, which must be before the end."""
        deadline = time.monotonic() + LIMIT_S
        while not done():
            assert self.process.poll() is None or done(), self.process.communicate()
            assert time.monotonic() < deadline, f"not so within {LIMIT_S:g} s"
            time.sleep(0.02)

    def signal(self, which: signal.Signals) -> None:
        """Send a signal to the parent process alone."""
        self._begin = time.monotonic()
        self.process.send_signal(which)

    def processes(self) -> dict[int, str]:
        """Command lines of the child's living processes, by process id."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # ended meanwhile, or somebody else's
        return found

    def finish(self, limit_s: float = LIMIT_S) -> Finished:
        """Wait for the end; ``seconds`` counts from the start or the last signal."""
        try:
            out, err = self.process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.end()
            _, err = self.process.communicate()
            pytest.fail(f"did not end within {limit_s:g} s; stderr: {err}")
        seconds = time.monotonic() - self._begin
        deadline = time.monotonic() + GONE_S
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        results = {} if self._output is None else _read(self._output)
        return Finished(self.process.returncode, out, err, seconds, [*left.values()], results)

    def end(self) -> None:
        """Kill whatever is left of the child."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(GONE_S)


def inherited() -> dict[str, str]:
    """The variables of this process without those that a user's settings are in."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


def variables(plugins: Path | None = None) -> dict[str, str]:
    """Those, with the checkout, and ``plugins``, on Python's path."""
    path = os.pathsep.join(str(folder) for folder in (CHECKOUT, plugins) if folder is not None)
    return inherited() | {"PYTHONPATH": path}


@contextmanager
def started(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], output: Path | None = None
) -> Iterator[Running]:
    """Start a child with no variables but those; what is left of it afterwards is killed.

    Its end has the results that are in ``output`` then.
    """
    running = Running(command, cwd, environment, output)
    try:
        yield running
    finally:
        running.end()


def run(
    *command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None, timeout_s: float = LIMIT_S
) -> Finished:
    """Run a command to its end, with no variables but those where any are given."""
    with started(command, cwd, inherited() if environment is None else environment) as running:
        return running.finish(timeout_s)


def python_started(
    *arguments: str | Path, cwd: Path, plugins: Path | None = None, **environment: str
) -> AbstractContextManager[Running]:
    """Start Python in ``cwd`` with the checkout, and ``plugins``, on its path."""
    return started([sys.executable, "-P", *arguments], cwd, variables(plugins) | environment)


def run_python(
    *arguments: str | Path, cwd: Path, plugins: Path | None = None, timeout_s: float = LIMIT_S, **environment: str
) -> Finished:
    """Run Python to its end; the arguments are those of ``python_started``."""
    with python_started(*arguments, cwd=cwd, plugins=plugins, **environment) as running:
        return running.finish(timeout_s)


def run_sut(
    *arguments: str | Path, cwd: Path, plugins: Path | None = None, timeout_s: float = LIMIT_S, **environment: str
) -> Finished:
    """``sut run`` with results in ``cwd/output``."""
    command = ("-m", "sut", "run", "--output", cwd / "output", *arguments)
    return run_python(*command, cwd=cwd, plugins=plugins, timeout_s=timeout_s, **environment)


def results(cwd: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Every result.json below ``cwd/output`` by scenario and mode, with its ``directory``."""
    output = cwd / "output"
    return {
        (result["scenario"], result["mode"]): result | {"directory": (output / place).parent}
        for place, result in _read(output).items()
    }


def _read(output: Path) -> dict[Path, dict[str, Any]]:
    files = sorted(output.rglob("result.json"))
    return {file.relative_to(output): json.loads(file.read_text(encoding="utf-8")) for file in files}


def load_tool(name: str) -> ModuleType:
    """A script of tools/, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder: Path, name: str, script: str) -> Path:
    """A shell script that can be executed."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
