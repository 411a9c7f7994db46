"""Children: the command line, scripts and plug-in distributions in processes of their own, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
_NOT_INHERITED = ("DATA_DIR", "OUTPUT_DIR", "MODEL_DIR", "EXTRA_OPS", "PYTHONPATH")


@dataclass(frozen=True)
class Finished:
    """A child that has ended: exit code, what it said, how long it took."""

    code: int
    out: str
    err: str
    seconds: float


def run_python(
    *arguments: str | Path, cwd: Path, plugins: Path | None = None, timeout_s: float = 120, **environment: str
) -> Finished:
    """Run Python in ``cwd`` with the checkout, and ``plugins``, on its path."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    path = os.pathsep.join(str(folder) for folder in (CHECKOUT, plugins) if folder is not None)
    begin = time.monotonic()
    child = subprocess.run(
        [sys.executable, "-P", *map(str, arguments)],
        cwd=cwd,
        env=inherited | environment | {"PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Finished(child.returncode, child.stdout, child.stderr, time.monotonic() - begin)


def run_sut(
    *arguments: str | Path, cwd: Path, plugins: Path | None = None, timeout_s: float = 120, **environment: str
) -> Finished:
    """``sut run`` with results in ``cwd/output``."""
    command = ("-m", "sut", "run", "--output", cwd / "output", *arguments)
    return run_python(*command, cwd=cwd, plugins=plugins, timeout_s=timeout_s, **environment)


def results(cwd: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Every result.json below ``cwd/output`` by scenario and mode, with its ``directory``."""
    found = {}
    for path in (cwd / "output").rglob("result.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[result["scenario"], result["mode"]] = result | {"directory": path.parent}
    return found


def plug_in(folder: Path, name: str, source: str, attribute: str) -> Path:
    """A distribution of one module whose ``attribute`` is the backend ``name``; for ``plugins``."""
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[sut.backends]\n{name} = plugin_{name}:{attribute}\n")
    (folder / f"plugin_{name}.py").write_text(source)
    return folder


SLEEPER = """
import os
import time

from backends.null import Null, NullRunner


class Sleeper(Null):
    name = "sleeper"

    def runner(self):
        return SleeperRunner()


class SleeperRunner(NullRunner):
    batch_s = float(os.environ["SLEEP_BATCH_MS"]) / 1000
    sample_s = float(os.environ["SLEEP_SAMPLE_MS"]) / 1000

    def infer(self, slot):
        time.sleep(self.batch_s + slot.n * self.sample_s)
        return super().infer(slot)
"""


def sleeper(folder: Path) -> Path:
    """The plug-in ``sleeper``: takes SLEEP_BATCH_MS and SLEEP_SAMPLE_MS more for each sample, and no core."""
    return plug_in(folder, "sleeper", SLEEPER, "Sleeper")
