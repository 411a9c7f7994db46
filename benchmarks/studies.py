"""The studies of "Beyond Inference" one after the other, and what came of each claim: docs/studies.md.

python benchmarks/studies.py [--output DIR] [--only NAME,...] [--overwrite] [--write-docs]

Each study is a command of the product with a budget of minutes. One that is in DIR already is not run again unless
--overwrite says so; interrupted, it goes on with the one that was cut off. The page is of all that DIR has: --only ''
measures nothing and makes it. Exit code: 0 all was measured, whatever came out; 1 wrong usage; 3 a study failed;
130 interrupted.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.claims import AbsentError, Claim, UntestableError
from benchmarks.document import Parser, publish, table
from benchmarks.overhead_sides import MeasurementError, last_line, run_command
from benchmarks.paper import CLAIMS, THESIS
from plugins.files import LARGE_BYTES, read_file
from sut.errors import one_line
from sut.results.machine import named
from sut.results.schema import COMPARISON, STUDY
from sut.studies.pages import read_study

PAGE = Path(__file__).resolve().parent.parent / "docs" / "studies.md"
_BESIDE_S = 900
"""Seconds that a study may take beside its budget: a model and pictures are made once, and INT8 files calibrated."""
_SENTENCES = 3
"""Of a study, on the page; its own page has all."""


@dataclass(frozen=True, slots=True)
class Study:
    """A command of the product, the minutes that it is given, and the file that it leaves.

    A command without ``--budget`` takes about its minutes.
    """

    words: str
    minutes: int
    file: str = STUDY
    has_budget: bool = True

    @property
    def command(self) -> str:
        """What follows ``./run_local.sh``."""
        return f"{self.words} --budget {self.minutes}m" if self.has_budget else self.words


_LITE0 = "--model efficientnet-lite0"
_SERVED = f"{_LITE0} --backend openvino"
_VIT_B = "--model vit-b --weights random"
_TINYVIT = "--model tinyvit --weights random"
_SMALL_TO_LARGE = "mobilenet-v2,efficientnet-lite0,tinyvit,resnet-18,resnet50,resnet-101,vit-b"
_MORE = "efficientnet-lite1,efficientnet-lite2,lraspp,dpt,yolo11"
STUDIES = {
    "ladder": Study("study ladder", 9),
    "models": Study(f"study models --models {_SMALL_TO_LARGE} --preprocess opencv,fused", 9),
    "models-more": Study(f"study models --models {_MORE} --preprocess opencv,fused", 5),
    "models-large": Study(f"study models --pictures large --models {_SMALL_TO_LARGE} --preprocess opencv,fused", 5),
    "breakdown": Study(f"breakdown {_LITE0} --pictures medium --preprocess opencv,fused", 6),
    "breakdown-large": Study(f"breakdown {_LITE0} --pictures large --preprocess opencv,fused", 9),
    "breakdown-vit-b": Study(f"breakdown {_VIT_B} --pictures medium --preprocess opencv", 9),
    "breakdown-vit-b-large": Study(f"breakdown {_VIT_B} --pictures large --preprocess opencv", 9),
    "bottleneck": Study(f"breakdown --bottleneck {_LITE0} --pictures medium,large --preprocess opencv,fused", 5),
    "tinyvit": Study(f"breakdown --bottleneck {_TINYVIT} --pictures medium --preprocess opencv,fused", 3),
    "sweep": Study(f"sweep {_SERVED} --boundary jpeg --preprocess fused --latency 200", 9),
    "cores": Study(f"sweep {_SERVED} --cores 1..2", 5),
    "whatif": Study(f"whatif {_LITE0} --boundary jpeg --scenario Offline --faster 30", 5),
    "shortcuts": Study(f"study shortcuts {_LITE0} --pairs 5", 8, has_budget=False),
    "compare": Study(f"compare {_LITE0}", 5, COMPARISON),
    "plan": Study(f"plan {_SERVED} --boundary jpeg --preprocess fused --rate 50 --p99 200ms", 1, has_budget=False),
}
Verdict = Literal["holds", "does not hold", "cannot be told", "cannot be tested here", "not measured yet"]
_LED_BY: dict[Verdict, str] = {
    "holds": "hold",
    "does not hold": "do not",
    "cannot be tested here": "cannot be tested",
    "cannot be told": "cannot be told",
    "not measured yet": "are not measured yet",
}
_LEAD = 3
"""How many of these lead the page, there or not."""
_DECIDED: dict[bool | None, Verdict] = {True: "holds", False: "does not hold", None: "cannot be told"}


# ---- measuring


def measure(name: str, output: Path, *, overwrite: bool = False) -> None:
    """Run a study, unless it is there. Raises ``MeasurementError`` where it leaves no file.

    It runs in a folder of another name, so that one that was cut off is not taken for done. A study in which a cell
    failed is done: its file says which.
    """
    study, home, begun = STUDIES[name], output / name, output / f"{name}.part"
    if overwrite:
        for folder in (home, begun):
            shutil.rmtree(folder, ignore_errors=True)
    if file_of(name, output) is not None:
        _say(f"{name}: there already: {home}")
        return
    begin_ns = time.time_ns()
    _say(f"{name}: up to {study.minutes} minutes, and what its models take to be made: sut {study.command}")
    command = [sys.executable, "-P", "-m", "sut", *shlex.split(study.command), "--output", str(begun.resolve())]
    done = run_command(command, limit_s=60 * study.minutes + _BESIDE_S)
    found = _newest(begun, study.file)
    if done.returncode not in (0, 3, 4) or found is None or found.stat().st_mtime_ns < begin_ns:
        raise MeasurementError(f"{name}: {last_line(done.stderr) or f'exit code {done.returncode}'}")
    shutil.rmtree(home, ignore_errors=True)
    begun.rename(home)


def file_of(name: str, output: Path) -> Path | None:
    """The file that a study has left below ``output``; None where it has not been run."""
    return _newest(output / name, STUDIES[name].file)


def _newest(folder: Path, name: str) -> Path | None:
    return max(folder.glob(f"**/{name}"), key=lambda path: path.stat().st_mtime_ns, default=None)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- judging


def read_content(path: Path) -> Mapping[str, Any]:
    """What a study's file has. Raises ``ValueError`` that says why it has nothing."""
    try:
        content = json.loads(read_file(path, LARGE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not what a study writes")
    return content


def judged(claim: Claim, output: Path) -> tuple[Verdict, str]:
    """What came of a claim, and our figure, or why there is none."""
    if claim.judge is None:
        return "cannot be tested here", "-"
    if (path := file_of(claim.study, output)) is None:
        return "not measured yet", "-"
    try:
        ours = claim.judge(read_content(path))
    except UntestableError as error:
        return "cannot be tested here", one_line(error)
    except AbsentError as error:
        return "not measured yet", one_line(error)
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        return (
            "not measured yet",
            f"{path.name} is edited, or of another study: {type(error).__name__}: {one_line(error)}",
        )
    return _DECIDED[ours.holds], ours.words


def lead(verdicts: Sequence[Verdict]) -> str:
    """How many claims came to what.

    >>> lead(["holds", "cannot be told", "holds"])
    '**Measured here: 2 hold, 0 do not, 0 cannot be tested**; 1 cannot be told'
    """
    counts = Counter(verdicts)
    told = [(verdict, f"{counts[verdict]} {words}") for verdict, words in _LED_BY.items()]
    more = [words for verdict, words in told[_LEAD:] if counts[verdict]]
    return "; ".join([f"**Measured here: {', '.join(words for _, words in told[:_LEAD])}**", *more])


# ---- the page


def typed(claim: Claim) -> str:
    """The command that repeats a claim, as it is typed; ``-`` for one that there is none for."""
    words = STUDIES[claim.study].command if claim.study else claim.command
    if not words:
        return "-"
    return f"`{words}`" if words.startswith("python ") else f"`./run_local.sh {words}`"


def page(output: Path) -> list[str]:
    """The lines of the page: the lead, the paper, the thesis, what each study says."""
    found = {claim: judged(claim, output) for claim in (*CLAIMS, *THESIS)}
    minutes = sum(study.minutes for study in STUDIES.values())
    return [
        f"{lead([verdict for verdict, _ in found.values()])}.",
        "",
        f"`python benchmarks/studies.py --write-docs` runs all {len(STUDIES)} studies: {minutes} minutes by their "
        "budgets, each under ten, and what its models take to be made the first time.",
        *("", "## The paper, figure by figure", ""),
        *_claims("figure", CLAIMS, found),
        *("", "## The thesis, table by table", ""),
        *_claims("table", THESIS, found),
        *("", "## What each study says", ""),
        *table(("study", "command", "what it says"), [_study(name, output) for name in STUDIES]),
    ]


def _claims(what: str, claims: Sequence[Claim], found: Mapping[Claim, tuple[Verdict, str]]) -> list[str]:
    columns = (what, "what they found", "here", "this machine gave", "command", "what needs hardware that is not here")
    rows = [[each.figure, each.says, *found[each], typed(each), each.needs or "-"] for each in claims]
    return table(columns, rows)


def _study(name: str, output: Path) -> list[str]:
    command, path = f"`./run_local.sh {STUDIES[name].command}`", file_of(name, output)
    if path is None:
        return [name, command, "not measured yet"]
    try:
        return [name, command, _said(path)]
    except (ValueError, LookupError, TypeError) as error:
        return [name, command, f"not measured: {one_line(error)}"]


def _said(path: Path) -> str:
    """Where a study ran, and its first sentences; random weights are told in any case."""
    content = read_content(path)
    told = [content["sentence"]] if path.name == COMPARISON else [*read_study(path, "s0").sentences[:_SENTENCES]]
    weights = {content.get("weights"), *(row.get("weights") for row in content["rows"])}
    if "random" in weights and not any("random" in each for each in told):
        told.append("the weights are random: times are real, answers mean nothing")
    where = f"{named(content['system'])}, {content['system']['utc'][:10]}"
    return f"{where}: {'; '.join(each.rstrip('.') for each in told)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, write."""
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/studies"), metavar="DIR", help="(output/studies)")
    parser.add_argument("--only", default=",".join(STUDIES), metavar="NAME,...", help="studies to run")
    parser.add_argument("--overwrite", action="store_true", help="run again what is there")
    parser.add_argument("--write-docs", action="store_true", help="write docs/studies.md")
    given = parser.parse_args(arguments)
    names = [name for name in given.only.split(",") if name]
    if unknown := [name for name in names if name not in STUDIES]:
        parser.error(f"unknown study '{unknown[0]}'; known: {', '.join(STUDIES)}")
    failed = False
    for name in names:
        try:
            measure(name, given.output, overwrite=given.overwrite)
        except (MeasurementError, OSError) as error:
            failed = True
            _say(f"error: {one_line(error)}")
        except KeyboardInterrupt:
            _say(f"{name} was cut off; the same command goes on with it")
            return 130
    publish(page(given.output), "studies" if given.write_docs else None, "Studies", PAGE)
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
