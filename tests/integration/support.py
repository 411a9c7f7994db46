"""Runs ``python -m sut run`` in a child process, with plug-ins, a time limit and a look at what it leaves behind."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np

from backends.base import Backend
from tests.children import Finished, Running, started, variables
from tests.distributions import write_distribution
from tests.integration import plugins

PICTURES = 12
WHITE_FROM = 8
"""The first white picture: warm-up takes the first eight at the most."""


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
        write_distribution(
            self.packages,
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

    def reached(self) -> bool:
        """Whether a fault has left its file ``reached``."""
        return (self.folder / "reached").exists()

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

    def started(
        self,
        *arguments: str | Path,
        command: str = "run",
        prologue: str = "",
        wrapper: Sequence[str] = (),
        **environment: str,
    ) -> AbstractContextManager[Running]:
        """Start a run, or another command; what is left of it afterwards is killed.

        ``prologue`` is Python to run in its process before, ``wrapper`` a command that starts the rest of its line.
        """
        start = ["-m", "sut"]
        if prologue:
            start = ["-c", f"{prologue}\nimport runpy; runpy.run_module('sut', run_name='__main__', alter_sys=True)"]
        ours = {"SUT_CACHE_DIR": str(self.cache), "FAULTS_FOLDER": str(self.folder)}
        line = [*wrapper, sys.executable, "-P", *start, command, *arguments]
        return started(line, self.cwd, variables(self.packages) | ours | environment, self.output)

    def run(
        self,
        *arguments: str | Path,
        command: str = "run",
        prologue: str = "",
        wrapper: Sequence[str] = (),
        **environment: str,
    ) -> Finished:
        """Run to the end; the arguments are those of ``started``."""
        with self.started(*arguments, command=command, prologue=prologue, wrapper=wrapper, **environment) as running:
            return running.finish()
