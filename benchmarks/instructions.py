"""Instructions that a query costs in this harness: ``python benchmarks/instructions.py [CHECKOUT...]``.

The null backend under LoadGen inside ``valgrind --tool=callgrind``, at two lengths: the difference of the totals,
divided by that of the queries, is what one query costs, start-up excluded. No other program on the machine moves it,
which no clock can say; but for Server's, whose batches are cut as queries come: a busy machine moves it by a fifth.
Several checkouts, such as one of an older commit, are shown side by side. Needs valgrind.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
QUERIES = {
    "SingleStream": (2_000, 6_000),
    "MultiStream": (1_000, 3_000),
    "Server": (1_000, 3_000),
    "Offline": (50_000, 250_000),
}
"""Two lengths; Offline's are samples of its one query."""
PACKAGES = ("sut", "backends", "preprocess", "kernels", "plugins")
LIMIT_S = 540

# What sut/run/course.py does around LoadGen, without the supervisor: a query's way through it is the same.
SCRIPT = """
import sys
from pathlib import Path
import mlperf_loadgen as lg
from sut.mlperf import loadgen
from sut.config import RunConfig
from sut.pipeline.ledger import Ledger
from sut.pipeline.system import SUT
from sut.run.pulse import never_raising

scenario, queries, output = sys.argv[1], int(sys.argv[2]), sys.argv[3]
config = RunConfig(backend="null", scenario=scenario, dataset="demo")
settings = loadgen.settings_for("resnet50", scenario, "performance", [])
settings.min_duration_ms, settings.min_query_count = 0, queries
settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = 10**9
settings.server_target_qps, settings.offline_expected_qps = 10**4, 1
settings.server_target_latency_ns = 10**12
with SUT(config) as sut:
    per_query = 8 if scenario == "MultiStream" else 1
    shape = sut.ledger_shape(2 * queries * per_query + 1000, False)
    sut.start(Ledger(shape))
    calls = loadgen.Callbacks(never_raising(sut.issue, None), sut.flush, sut.library.load, sut.library.unload)
    loadgen.run(calls, settings, 11, 11, Path(output), None, False)
    assert sut.failed_samples == 0
"""


def total(checkout: Path, scenario: str, queries: int) -> int:
    """Instructions of a whole process that answers so many queries."""
    with tempfile.TemporaryDirectory() as folder:
        # Paths of one length: another one alone moves the count by 0.6 %.
        for package in PACKAGES:
            shutil.copytree(checkout / package, Path(folder, "checkout", package))
        done = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--"),
                *(sys.executable, "-P", "-c", SCRIPT, scenario, str(queries), folder),
            ],
            # Strings hash the same way in every process, so dictionaries take the same steps.
            env={**os.environ, "PYTHONPATH": f"{folder}/checkout", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"{checkout} {scenario}: exit {done.returncode}: {done.stderr[-2000:]}")
    return int(found[1])


def folder_of(word: str) -> Path:
    """The folder of a checkout, for argparse."""
    path = Path(word).resolve()
    if missing := [name for name in PACKAGES if not (path / name).is_dir()]:
        raise argparse.ArgumentTypeError(f"{word!r} is no checkout of this project: it has no folder {missing[0]!r}")
    return path


def main() -> None:
    """Measure every checkout in every scenario and print instructions per query (Offline: per sample) as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", metavar="CHECKOUT", nargs="*", type=folder_of, help="a folder (default: this)")
    checkouts = parser.parse_args().checkouts or [HERE]
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed (Debian: apt-get install valgrind)")
    with ThreadPoolExecutor(2) as pool:
        for scenario, lengths in QUERIES.items():
            for checkout in checkouts:
                fewer, more = pool.map(lambda count, at=checkout, name=scenario: total(at, name, count), lengths)
                each = (more - fewer) / (lengths[1] - lengths[0])
                print(
                    json.dumps({"checkout": str(checkout), "scenario": scenario, "instructions": round(each)}),
                    flush=True,
                )


if __name__ == "__main__":
    main()
