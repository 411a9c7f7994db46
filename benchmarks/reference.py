"""This system beside MLPerf's reference harness: speed on the same cores, and thirteen faults planted in both.

python benchmarks/reference.py HARNESS [--only speed,faults] [--pairs 7] [--seconds 8] [--write-docs]

HARNESS is ``vision/classification_and_detection/python`` of a checkout of github.com/mlcommons/inference. Both run
ResNet-50's topology with random weights on the demo photos, on ONNX Runtime, under the same LoadGen, with their own
defaults; a third side is this system with INT8 on OpenVINO. The sides take turns. Exit code: 0 measured, whatever came
out; 1 wrong usage; 3 a side could not be run.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.document import Parser, command_line, publish, table
from benchmarks.overhead_sides import ROOT, MeasurementError, environment, last_line, measured, run_command
from sut.mlperf.logs import read_detail
from sut.models.sources.resnet import build

PLANT = Path(__file__).with_name("reference_plant.py")
PHOTOS = ROOT / "sut" / "datasets" / "demo_photos"
LIMIT_S = 60
"""A planted run that has not ended by then hangs: each is asked for two seconds."""

_CELL = 110
"""Characters of a table's cell at most."""

Change = Callable[[Path], None]
"""Changes a data set folder."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is planted: in the runtime (``strike``), in the pictures, in the options or in user.conf."""

    name: str
    scenario: str = "SingleStream"
    strike: str = ""
    change: Change = lambda folder: None
    options: tuple[str, ...] = ()
    conf: str = ""


def _cut(folder: Path) -> None:
    picture = folder / "bee.jpg"
    picture.write_bytes(picture.read_bytes()[:3000])


FAULTS = (
    Fault("the runtime raises on every sample", strike="raises"),
    Fault("the runtime raises on every sample, in batches", "Offline", strike="raises"),
    Fault("the runtime raises on one sample in ten", strike="raises sometimes"),
    Fault("the runtime answers nothing", strike="nothing"),
    Fault("the runtime answers a batch with one row less", "Offline", strike="row short"),
    Fault("the runtime answers with label 5000, or scores that are no numbers", strike="no class"),
    Fault("the runtime hangs", strike="hangs"),
    Fault("the runtime leaves the thread", "Offline", strike="leaves"),
    Fault("a picture of the list is missing", change=lambda folder: (folder / "bee.jpg").unlink()),
    Fault("a picture is cut short", change=_cut),
    Fault("a GPU is asked for, there is none", options=("--device", "cuda")),
    Fault("user.conf: 'key=value', which LoadGen skips", conf="*.SingleStream.min_query_count=100000\n"),
    Fault("user.conf: a model name that LoadGen never asks for", conf="resnet.*.min_query_count = 100000\n"),
)

SCENARIOS = {
    "SingleStream": ("p50", "result_50.00_percentile_latency_ns", 1e-6, "ms"),
    "MultiStream": ("p99 of 8", "result_99.00_percentile_per_query_latency_ns", 1e-6, "ms"),
    "Offline": ("rate", "result_samples_per_second", 1.0, "samples/s"),
}
"""Per scenario: what is compared, LoadGen's key for it, and its unit."""
INT8 = ("--backend", "openvino", "--precision", "int8")


@dataclass(frozen=True, slots=True)
class Harnesses:
    """The two harnesses in a folder of their own, with the same model, pictures and LoadGen settings."""

    harness: Path
    work: Path
    seconds: float
    model: Path

    def folder(self, change: Change = lambda folder: None) -> Path:
        """The demo photos with their list, new and changed."""
        folder = Path(tempfile.mkdtemp(prefix="photos-", dir=self.work))
        with (PHOTOS / "SOURCES.csv").open(encoding="utf-8") as file:
            rows = [(row["file"], row["imagenet_class"]) for row in csv.DictReader(file)]
        for name, _ in rows:
            shutil.copy(PHOTOS / name, folder / name)
        (folder / "val_map.txt").write_text("".join(f"{name} {label}\n" for name, label in rows), encoding="utf-8")
        change(folder)
        return folder

    def conf(self, seconds: float, more: str = "") -> Path:
        """LoadGen's settings for a short run; the rates are what ResNet-50 does on two cores."""
        path = Path(tempfile.mkdtemp(prefix="conf-", dir=self.work)) / "user.conf"
        lines = [f"*.*.min_duration = {int(1000 * seconds)}", "*.Offline.target_qps = 40"]
        lines += [f"*.{name}.min_query_count = {count}" for name, count in (("Offline", 1), ("MultiStream", 20))]
        path.write_text("\n".join([*lines, more]), encoding="utf-8")
        return path

    def theirs(self, scenario: str, conf: Path, photos: Path, out: Path, *options: str) -> list[str]:
        """The reference harness's command."""
        paths = ["--dataset-path", photos, "--model", self.model, "--output", out, "--user_conf", conf]
        words = ["--profile", "resnet50-onnxruntime", "--backend", "onnxruntime", "--scenario", scenario]
        rules = ["--mlperf_conf", ROOT / "mlperf.conf", "--cache_dir", out / "cache"]
        return [sys.executable, "main.py", *words, *map(str, [*paths, *rules]), *options]

    def ours(self, scenario: str, conf: Path, photos: Path, out: Path, *options: str) -> list[str]:
        """This system's."""
        paths = ["--dataset-path", photos, "--output", out, "--user-conf", conf]
        words = ["--model", "resnet50", "--weights", "random", "--scenario", scenario]
        return [sys.executable, "-P", "-m", "sut", "run", *words, *map(str, paths), *options]

    def run(
        self,
        side: str,
        scenario: str,
        conf: Path,
        photos: Path,
        limit_s: float,
        options: Iterable[str],
        variables: Mapping[str, str] | None = None,
    ) -> tuple[Path, int | None, str]:
        """Run one side: its output, its exit code (None: it had to be killed) and the last line of its errors."""
        out = Path(tempfile.mkdtemp(prefix="out-", dir=self.work))
        command, there = (self.theirs, self.harness) if side == "reference" else (self.ours, self.work)
        try:
            done = run_command(command(scenario, conf, photos, out, *options), there, variables, limit_s)
        except MeasurementError:
            return out, None, ""
        return out, done.returncode, last_line(done.stderr)

    def figure(self, side: str, scenario: str) -> float:
        """One run of one side. Raises ``MeasurementError`` for a failed one."""
        options = INT8 if side == "ours int8" else ()
        limit_s = 60 + 10 * self.seconds
        out, code, said = self.run(side, scenario, self.conf(self.seconds), self.folder(), limit_s, options)
        log = next(out.rglob("mlperf_log_detail.txt"), None)
        if code not in (0, 4) or log is None:
            raise MeasurementError(f"{side}, {scenario}: {'no end' if code is None else f'exit {code}'}: {said}")
        _, key, scale, _ = SCENARIOS[scenario]
        return float(read_detail(log.parent).values[key]) * scale

    def outcome(self, side: str, fault: Fault) -> str:
        """How a planted run of one side ended: ``VALID``, ``hangs``, or what it said."""
        options = (*fault.options, *(() if side == "reference" else ("--watchdog", "10")))
        variables = environment(REFERENCE_FAULT=fault.strike)
        variables["PYTHONPATH"] = os.pathsep.join((str(self.work), variables["PYTHONPATH"]))
        conf, photos = self.conf(2, fault.conf), self.folder(fault.change)
        out, code, said = self.run(side, fault.scenario, conf, photos, LIMIT_S, options, variables)
        if code is None:
            return "hangs"
        summary = next(out.rglob("mlperf_log_summary.txt"), None)
        valid = summary is not None and "Result is : VALID" in summary.read_text(encoding="utf-8", errors="replace")
        if code == 0 and valid:
            return "VALID"
        return f"exit {code}: {said}"


def speed(bench: Harnesses, pairs: int) -> list[str]:
    """A table of the three sides, in medians of ``pairs`` rounds."""
    rows = []
    sides = ("reference", "ours fp32", "ours int8")
    for scenario, (what, _, _, unit) in SCENARIOS.items():
        found: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(pairs):
            for side in sides if number % 2 == 0 else reversed(sides):
                found[side].append(bench.figure(side, scenario))
                print(f"{scenario} {number + 1} of {pairs}, {side}: {found[side][-1]:.4g} {unit}", flush=True)
        first = found["reference"]
        cells = [f"{statistics.median(first):.4g} {unit}"]
        for side in sides[1:]:
            pair = zip(found[side], first, strict=True)
            ratios = [b / a if unit == "ms" else a / b for a, b in pair]
            cells += [
                f"{statistics.median(found[side]):.4g} {unit}",
                f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        rows.append([f"{scenario} {what}", *cells])
    return table(("", "reference", "ours, fp32", "", "ours, int8 on OpenVINO", ""), rows)


def faults(bench: Harnesses, _: int) -> list[str]:
    """A table of how both end for each fault, and the score."""
    shutil.copy(PLANT, bench.work / "sitecustomize.py")
    rows = []
    found: dict[str, list[str]] = {"reference": [], "ours": []}
    for fault in FAULTS:
        for side, ends in found.items():
            ends.append(bench.outcome(side, fault))
        rows.append([fault.name, *(shortened(ends[-1], bench.work) for ends in found.values())])
        print(*rows[-1], sep=" | ", flush=True)
    scores = {side: f"{ends.count('VALID')} end as VALID, {ends.count('hangs')} hang" for side, ends in found.items()}
    score = f"Of {len(FAULTS)} faults, in the reference harness {scores['reference']}; here {scores['ours']}."
    return [score, "", *table(("planted", *found), rows)]


def shortened(end: str, work: Path) -> str:
    """What a run said, for a cell of a table: without the folders of this measurement."""
    plain = re.sub(rf"{re.escape(str(work))}\S*/", "", end)
    return plain if len(plain) <= _CELL else f"{plain[: _CELL - 3]}..."


PARTS: dict[str, Callable[[Harnesses, int], list[str]]] = {"speed": speed, "faults": faults}


def main() -> int:
    """Measure what was asked for."""
    parser = Parser(__doc__)
    parser.add_argument("harness", type=Path)
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,...")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args()
    parts = given.only.split(",")
    if not (given.harness / "main.py").is_file():
        parser.error(f"{given.harness}: no main.py; name a checkout's vision/classification_and_detection/python")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    before = os.getloadavg()[0]
    body = []
    with tempfile.TemporaryDirectory(prefix="reference-") as work:
        bench = Harnesses(given.harness.resolve(), Path(work), given.seconds, build("random", print))
        try:
            for part in parts:
                body += ["", *PARTS[part](bench, given.pairs)]
        except MeasurementError as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
    command = command_line(["HARNESS" if word == str(given.harness) else word for word in sys.argv])
    body.insert(0, measured(command, before))
    publish(body, "reference" if given.write_docs else None, "Beside MLPerf's reference harness")
    return 0


if __name__ == "__main__":
    sys.exit(main())
