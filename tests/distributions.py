"""Distributions as pip leaves them in a folder of the path: metadata, entry points, modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_distribution(
    folder: Path, name: str, points: Mapping[str, Mapping[str, str]] | None = None, *, version: str = "1.0"
) -> Path:
    """Write a distribution's metadata, which has its entry points by group and name; returns the folder with it."""
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines: list[str] = []
    for group, names in (points or {}).items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return information


def plug_in(folder: Path, name: str, source: str, attribute: str, group: str = "sut.backends") -> Path:
    """A distribution of one module whose ``attribute`` is the backend ``name``, or of another ``group``."""
    write_distribution(folder, name, {group: {name: f"plugin_{name}:{attribute}"}})
    (folder / f"plugin_{name}.py").write_text(source)
    return folder


SLEEPER = """
import os
import time

from backends.null import Null, NullRunner


class Sleeper(Null):
    name = "sleeper"

    def runner(self, place="host"):
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
