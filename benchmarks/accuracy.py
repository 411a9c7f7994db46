"""How long ``sut accuracy`` takes for 50,000 answers, as a command, from its start to its end.

python benchmarks/accuracy.py [--repeat 7] [--write-docs]

Exit code: 0 measured, whatever came out; 1 wrong usage.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish
from benchmarks.overhead_sides import last_line, measured, run_command
from sut.datasets.base import IMAGENET_PICTURES
from sut.mlperf.logs import ACCURACY
from sut.tasks.top1 import DTYPES


def measure(folder: Path, repeat: int) -> list[Figure]:
    """A log of each type, three of four answers right."""
    drawn = random.Random(0)
    labels = [drawn.randrange(1000) for _ in range(IMAGENET_PICTURES)]
    val_map = folder / "val_map.txt"
    val_map.write_text("".join(f"{index:08d}.JPEG {label}\n" for index, label in enumerate(labels)))
    figures = []
    for name, dtype in DTYPES.items():
        figure = Figure(f"{IMAGENET_PICTURES:,} answers in {name}", "s", Target("value", "below", 2))
        got = [dtype.type(label if index % 4 else 0).tobytes().hex().upper() for index, label in enumerate(labels)]
        lines = [f'{{ "seq_id" : {i}, "qsl_idx" : {i}, "data" : "{answer}" }}' for i, answer in enumerate(got)]
        (folder / ACCURACY).write_text("[\n" + ",\n".join(lines) + "\n]\n")
        command = [sys.executable, "-P", "-m", "sut", "accuracy", str(folder), "--val-map", str(val_map)]
        for _ in range(repeat):
            start = time.perf_counter()
            done = run_command(command)
            if done.returncode != 0:
                figure.error = last_line(done.stderr)
                break
            figure.ours.append(time.perf_counter() - start)
        figures.append(figure)
    return figures


def main() -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="measurements of each (7)")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/performance.md")
    given = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="accuracy-") as folder:
        figures = measure(Path(folder), given.repeat)
    body = [measured(command_line(sys.argv), before), "", *figures_table(figures)]
    publish(body, "accuracy" if given.write_docs else None, "Scoring")
    return 0


if __name__ == "__main__":
    sys.exit(main())
