"""Runs ``python -m sut run`` in a child process, with plug-ins, a time limit and a look at what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backends.base import Backend
from tests.integration import plugins

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 120.0
"""Against hangs only: a run of these tests takes seconds on an idle machine."""
GONE_S = 10.0
"""How long the kernel may take to end processes that were killed."""

_NOT_INHERITED = ("DATA_DIR", "MODEL_DIR", "OUTPUT_DIR", "EXTRA_OPS", "NUMBA_CACHE_DIR")

PICTURES = 12
WHITE_FROM = 8
"""The first white picture: warm-up takes the first eight at the most."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended. ``results`` are its result.json files by their place under the output directory."""

    code: int
    stdout: str
    stderr: str
    took_s: float
    results: Mapping[Path, dict[str, Any]]
    left: list[str]
    """Command lines of processes that it left behind."""

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that are errors, without their first word."""
        return [line.removeprefix("error: ") for line in self.stderr.splitlines() if line.startswith("error: ")]

    @property
    def error(self) -> str:
        """The one line about what went wrong; there is no other, no traceback, nothing running."""
        assert len(self.errors) == 1, self.stderr
        assert "Traceback" not in self.stdout + self.stderr
        assert self.left == []
        return self.errors[0]

    @property
    def result(self) -> dict[str, Any]:
        """The one result there is."""
        [result] = self.results.values()
        return result


class Running:
    """A run that goes on. Its processes carry a mark in their environment, whatever session they are in."""

    def __init__(self, arguments: list[str], cwd: Path, environment: Mapping[str, str], folder: Path) -> None:
        self._mark = f"SUT_TEST_RUN={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self._folder = folder
        self._output = cwd / "output"
        self._begin = time.monotonic()
        self.process = subprocess.Popen(
            arguments,
            cwd=cwd,
            env={**environment, name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    def wait_until_reached(self) -> None:
        """Wait until the plug-in has left its file ``reached``."""
        _wait(lambda: (self._folder / "reached").exists() or self.process.poll() is not None, LIMIT_S, "never reached")
        assert (self._folder / "reached").exists(), self.process.communicate()

    def signal(self, which: signal.Signals) -> None:
        """Send a signal to the parent process alone."""
        self._begin = time.monotonic()
        self.process.send_signal(which)

    def processes(self) -> dict[int, str]:
        """Command lines of the run's living processes, by process id."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # ended meanwhile, or somebody else's
        return found

    def finish(self, limit_s: float = LIMIT_S) -> Finished:
        """Wait for the end; ``took_s`` counts from the start or the last signal."""
        try:
            stdout, stderr = self.process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.end()
            _, stderr = self.process.communicate()
            pytest.fail(f"did not end within {limit_s:g} s; stderr: {stderr}")
        took_s = time.monotonic() - self._begin
        deadline = time.monotonic() + GONE_S
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        files = sorted(self._output.rglob("result.json"))
        results = {file.relative_to(self._output): json.loads(file.read_text(encoding="utf-8")) for file in files}
        return Finished(self.process.returncode, stdout, stderr, took_s, results, list(left.values()))

    def end(self) -> None:
        """Kill whatever is left of the run."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(GONE_S)


class Sut:
    """``sut run`` in a directory of its own, which ``--output`` is left to, with the faults of ``plugins`` installed.

    ``folder`` is what the faults see as their folder; ``packages`` is on PYTHONPATH.
    """

    def __init__(self, root: Path) -> None:
        self.cwd = root / "cwd"
        self.folder = root / "faults"
        self.packages = root / "packages"
        self.output = self.cwd / "output"
        for directory in (self.cwd, self.folder, self.packages):
            directory.mkdir()
        self.cache = root / "cache"
        shutil.copy(plugins.__file__, self.packages / "sut_test_faults.py")
        backends = {
            kind.name: f"sut_test_faults:{name}"
            for name, kind in vars(plugins).items()
            if isinstance(kind, type) and issubclass(kind, plugins.Plain)
        }
        assert all(issubclass(getattr(plugins, value.split(":")[1]), Backend) for value in backends.values())
        self.install(
            "sut-test-faults",
            {
                "sut.backends": {**backends, "no-backend": "sut_test_faults:NO_BACKEND"},
                "sut.models": {
                    "slow-to-score": "sut_test_faults:SLOW_TO_SCORE",
                    "slow-to-build": "sut_test_faults:SLOW_TO_BUILD",
                },
                "sut.tasks": {"slow-to-score": "sut_test_faults:SlowToScore"},
            },
        )

    def install(self, distribution: str, points: Mapping[str, Mapping[str, str]]) -> None:
        """Write a distribution's metadata, which has its entry points by group and name, beside its modules."""
        info = self.packages / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines: list[str] = []
        for group, names in points.items():
            lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    def pictures(self, root: Path | None = None) -> Path:
        """Twelve small pictures in the ImageNet layout, blanks in their names: grey, and white from the ninth on."""
        root = root or self.cwd / "pictures"
        root.mkdir()
        lines = []
        for number in range(PICTURES):
            white = number >= WHITE_FROM
            name = f"{'white' if white else 'grey'} picture {number}.jpg"
            encoded = cv2.imencode(".jpg", np.full((32, 40, 3), 255 if white else 128, np.uint8))[1]
            (root / name).write_bytes(encoded.tobytes())
            lines.append(f"{name} {number}\n")
        (root / "val_map.txt").write_text("".join(lines))
        return root

    @contextmanager
    def started(
        self, *arguments: str | Path, prologue: str = "", wrapper: Sequence[str] = (), **environment: str
    ) -> Iterator[Running]:
        """Start a run; what is left of it afterwards is killed.

        ``prologue`` is Python to run in its process before, ``wrapper`` a command that starts the rest of its line.
        """
        start = ["-m", "sut"]
        if prologue:
            start = ["-c", f"{prologue}\nimport runpy; runpy.run_module('sut', run_name='__main__', alter_sys=True)"]
        ours = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        running = Running(
            [*wrapper, sys.executable, "-P", *start, "run", *map(str, arguments)],
            self.cwd,
            {
                **ours,
                "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(self.packages)]),
                "SUT_CACHE_DIR": str(self.cache),
                "FAULTS_FOLDER": str(self.folder),
                **environment,
            },
            self.folder,
        )
        try:
            yield running
        finally:
            running.end()

    def run(
        self, *arguments: str | Path, prologue: str = "", wrapper: Sequence[str] = (), **environment: str
    ) -> Finished:
        """Run to the end; the arguments are those of ``started``."""
        with self.started(*arguments, prologue=prologue, wrapper=wrapper, **environment) as running:
            return running.finish()


def _wait(done: Callable[[], bool], limit_s: float, failure: str) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(f"{failure} within {limit_s:g} s")
        time.sleep(0.02)
