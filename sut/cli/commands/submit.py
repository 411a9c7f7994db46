"""``sut submit``: from finished runs to MLPerf's tree, the rehearsal of it, and the judge of any."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sut.cli.commands.audit import audit_table
from sut.cli.console import BriefConsole, Console, Watcher
from sut.cli.emit import emit, grid, print_parts
from sut.cli.findings import finding_lines, finding_rows
from sut.cli.options import Options, configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES, RunConfig
from sut.config.words import parse_scenarios
from sut.errors import ExitCode, InputError
from sut.mlperf import official
from sut.pipeline.assembly import Assembly
from sut.process.streams import tell, tell_error
from sut.results.schema import Result
from sut.results.wording import figure, verdict
from sut.studies.audits import Audited
from sut.studies.submission.about import DIVISIONS, About, read_about
from sut.studies.submission.checks import warnings
from sut.studies.submission.plan import Step
from sut.studies.submission.plan import plan as steps_to
from sut.studies.submission.rehearse import Rehearsed, about_rehearsal, run_rehearsal, scenarios_to_run
from sut.studies.submission.runs import Runs, benchmark_asked, read_runs
from sut.studies.submission.submission import Judged, check_target, judge, make_tree, refusals
from sut.studies.submission.tree import private_words
from sut.text import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

HELP = """Make the tree that MLPerf takes from finished runs, rehearse all of it in minutes, or judge any tree.

Example: ./run_local.sh submit --rehearse

Example: ./run_local.sh submit output/resnet50/onnxruntime-... --about submission.yaml --output submission

Example: ./run_local.sh submit --check submission

RESULTS are the folder of a configuration, as sut run has told it, or folders below it. What keeps them from being a
submission is listed whole, and nothing is written then; of a detector, whose exports differ, all runs must be of one
file. --plan shows what is to be run, for how long, and what is done.
--rehearse runs all that is asked for, each for ten seconds, and makes the same tree, marked as a rehearsal. It takes
the options of sut run; RESULTS is then one folder, where its runs go; interrupted, it goes on where it was.
docs/submission.md walks through all of it.

Exit code: 0 made and accepted by the judge, or judged sound; 1 nothing was written, or there is no tree to judge; 4 the
judge does not accept it, or a run does not count; else that of sut run.
"""
_TREE = Path("rehearsal")
_NOT_TAKEN = (
    "demo",
    "accuracy",
    "find_peak_performance",
    "rules",
    "audit_conf",
    "output",
    "overwrite",
    *RUN_FILES,
)
_DATA = ("dataset", "dataset_path", "dataset_list")
_FILES = ("config", "from_", "set_")
"""Options that may choose model and data, too."""
_GO_TOGETHER = {
    "check": {"check"},
    "plan": {"plan", "results", "about", "rehearse", "division", "runs"},
    "rehearse": {"rehearse", "results", "about", "output", "division", "overwrite", "runs"},
    "submit": {"results", "about", "output", "overwrite"},
}
"""What each use of the command takes; ``runs`` are the options of ``sut run``."""


def register(app: typer.Typer) -> None:
    """Add the command ``submit`` to ``app``."""
    app.command(cls=like_run(*_NOT_TAKEN), help=HELP)(submit)


def submit(
    context: typer.Context,
    results: Annotated[list[Path] | None, typer.Argument(help="Folders of finished runs.", show_default=False)] = None,
    about: Annotated[
        Path | None, typer.Option(help="What only you know: a YAML file like docs/examples/submission.yaml.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=f"Folder of the tree; of a rehearsal {_TREE} by default.")
    ] = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Short runs, and the same tree from them.")] = False,
    division: Annotated[
        str | None, typer.Option(help="closed, open or network, of a rehearsal without --about; closed by default.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="What to run, how long it takes, what is done.")] = False,
    check: Annotated[Path | None, typer.Option(metavar="DIR", help="Judge a tree, whoever made it.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Run all of a rehearsal anew; replace the tree of any rehearsal.")
    ] = False,
) -> None:
    """See HELP."""
    given: Options = context.obj
    paths = results or []
    _check_use(context.params, given)
    if check is not None:
        raise typer.Exit(_check(check, given.as_json))
    told = _told(about, division, given.scenario)
    runs_to_make = rehearse or (plan and not paths)
    configs = _configs(given, told, paths, rehearse, overwrite) if runs_to_make else []
    if plan:
        more = ["--about", str(about)] if about else ["--division", told.division]
        if rehearse and given.scenario is not None:
            more += ["--scenario", given.scenario]
        raise typer.Exit(_plan(paths, told, rehearse, configs, more, given.as_json))
    tree = output or _TREE
    check_target(tree, told, rehearse, overwrite)
    audits: Sequence[Audited] = ()
    if rehearse:
        done = run_rehearsal(configs, told, _Runs())
        _tell_audits(done, given.as_json)
        if done.code != ExitCode.OK:
            raise typer.Exit(done.code)
        paths, audits = [done.home], done.audits
    raise typer.Exit(_make(read_runs(paths, told), told, tree, rehearse, overwrite, audits, given.as_json))


def _make(
    runs: Runs,
    told: About,
    tree: Path,
    is_rehearsal: bool,
    overwrite: bool,
    audits: Sequence[Audited],
    as_json: bool,
) -> ExitCode:
    """The tree of finished runs, and what the judge says of it."""
    if found := refusals(runs, told, is_rehearsal):
        for each in found:
            tell_error(each)
        tell(f"nothing was written: {len(found)} thing{'' if len(found) == 1 else 's'} to mend")
        return ExitCode.INVALID if is_rehearsal else ExitCode.USAGE
    odd = warnings(runs)
    for each in () if is_rehearsal else odd:  # a rehearsal has just told them, of each run
        tell(f"warning: {each}")
    files = make_tree(runs, told, tree, is_rehearsal, overwrite)
    private = [f"{each}, which tells of this machine: is it for everybody?" for each in private_words(files)]
    for each in private:
        tell(f"warning: {each}")
    judged = judge(tree)
    count = len(runs.all())
    emit(
        "submit",
        finding_rows([*judged.findings, *judged.relaxed]),
        chain([f"{count} LoadGen runs: {runs.home}", f"{len(files)} files: {tree}"], _judgement(judged)),
        as_json,
        tree=str(tree),
        rehearsal=is_rehearsal,
        accepted=judged.accepted,
        runs=count,
        audits=[each.as_json() for each in audits],
        warnings=[*odd, *private],
    )
    return ExitCode.OK if judged.accepted else ExitCode.INVALID


class _Runs(BriefConsole):
    """A line for each run that is made, and all that is wrong with it."""

    _count = 0

    def header(self, parts: Assembly, home: Path) -> None:
        Console.header(self, parts, home)

    @contextmanager
    def watching(self, config: RunConfig) -> Iterator[Watcher]:
        self.running = True
        with super().watching(config) as watcher:
            yield watcher

    def result(self, result: Result, directory: Path, code: ExitCode, trace: str | None) -> None:
        super().result(result, directory, code, trace)
        Console.result(self, result, directory, code, trace)
        self._count += 1
        said = verdict(result.mode, result.valid, result.failed)
        took = duration(result.duration_s or 0)
        name = f"run {self._count}: {result.scenario} {directory.name}"
        tell(f"{name}: {said}, {figure(result.accuracy, result.metric)}, {took}")


def _tell_audits(done: Rehearsed, as_json: bool) -> None:
    if done.audits and not as_json:
        print_parts(audit_table(done.audits, rehearse=True))
    if done.code not in (ExitCode.OK, ExitCode.INTERRUPTED):
        tell_error(f"no tree was made: not every run in {done.home} counts; the same command makes those again")


def _check_use(params: dict[str, Any], given: Options) -> None:
    """Raise ``InputError`` for what one use of the command does not take, and for what it lacks."""
    use = next((name for name in ("check", "plan", "rehearse") if params[name]), "submit")
    there = {name for name, value in params.items() if value}
    usual = Options(settings={name: value for name, value in given.settings.items() if name == "debug"})
    if given.model_copy(update={"as_json": False, "left_out": ()}) != usual:
        there.add("runs")
    if others := sorted(there - _GO_TOGETHER[use]):
        words = {"results": "RESULTS", "runs": "an option of sut run"}
        told = words.get(others[0], f"--{others[0]}")
        where = f"--{use}" if use != "submit" else "finished runs; it is for --rehearse"
        raise InputError(f"{told} has no effect with {where}; leave it out")
    missing = [] if use != "submit" else sorted({"results", "about", "output"} - there)
    if use == "plan" and not there & {"about", "rehearse"}:
        raise InputError("a plan is of the submission that --about FILE tells of; or add --rehearse, which needs none")
    if missing:
        raise InputError("give RESULTS, --about FILE and --output DIR; or --rehearse, which needs none of them")
    if use == "rehearse" and len(params["results"] or []) > 1:
        raise InputError("RESULTS of a rehearsal is one folder, where its runs go; give one, or none")


def _told(about: Path | None, division: str | None, scenario: str | None) -> About:
    """What is told of the submission, with the scenarios that the command line names."""
    if about is not None and division is not None:
        raise InputError(f"{about} tells the division; leave --division out")
    if division not in (None, *DIVISIONS):
        raise InputError(f"--division is {' or '.join(DIVISIONS)}, got '{division}'")
    told = read_about(about) if about is not None else about_rehearsal(division or "closed")
    if scenario is None:
        return told
    if told.is_closed:
        wanted = ", ".join(scenarios_to_run(told, official.BENCHMARKS[official.MODEL]))
        raise InputError(
            f"the {told.division} division asks for {wanted}; leave --scenario out, or choose the open division"
        )
    return told.model_copy(update={"scenarios": parse_scenarios(scenario)})


def _configs(given: Options, told: About, paths: Sequence[Path], rehearse: bool, overwrite: bool) -> list[RunConfig]:
    """The runs that are to be made, one for each scenario; what was not chosen: a rehearsal takes the demo's data."""
    settings = {**given.settings, "overwrite": overwrite}
    chosen = settings.keys() | {name for name in _FILES if getattr(given, name)}
    if rehearse and not chosen & {*_DATA, *_FILES}:
        settings["dataset"] = "demo"
    if rehearse and told.division == "network":
        settings.setdefault("max_batchsize", 1)  # what --rules network takes care of
    if not rehearse and told.is_closed and not chosen & {"model", "profile", *_FILES}:
        settings["model"] = official.MODEL
    if paths:
        settings["output"] = paths[0]
    asked = given.model_copy(update={"settings": settings, "scenario": official.EDGE[0]})
    scenarios = scenarios_to_run(told, benchmark_asked(configs_of(asked)[0]))
    return configs_of(asked.model_copy(update={"scenario": ",".join(scenarios)}))


def _check(root: Path, as_json: bool) -> ExitCode:
    judged = judge(root)
    rows = finding_rows([*judged.findings, *judged.relaxed])
    emit("submit", rows, _judgement(judged), as_json, rehearsal=judged.is_rehearsal, accepted=judged.accepted)
    return ExitCode.OK if judged.accepted and not judged.is_rehearsal else ExitCode.INVALID


def _judgement(judged: Judged) -> Iterator[RenderableType]:
    yield from finding_lines(judged.findings)
    count = len(judged.findings)
    found = f"{count or 'no'} {'doubt' if judged.accepted else 'finding'}{'' if count == 1 else 's'}"
    if not judged.is_rehearsal:
        yield f"{judged.root}: {'sound' if judged.accepted else 'not accepted'}, {found}"
        return
    yield from _relaxed(judged)
    said = "all else was accepted" if judged.accepted else "not accepted"
    yield f"{judged.root}: a rehearsal, {said}, {found}"


def _relaxed(judged: Judged) -> Iterator[RenderableType]:
    """Each rule that a rehearsal relaxes, and in how many files it is broken."""
    yield "relaxed, because it is a rehearsal:"
    files = Counter(rule for rule, _ in {(each.rule, each.file) for each in judged.relaxed})
    lines = [[f"  {rule}", f"{count} file{'' if count == 1 else 's'}"] for rule, count in sorted(files.items())]
    yield grid(["rule", ">where"], lines, show_header=False)


def _plan(
    paths: Sequence[Path],
    told: About,
    rehearse: bool,
    configs: Sequence[RunConfig],
    more: Sequence[str],
    as_json: bool,
) -> ExitCode:
    steps = steps_to(paths, told, rehearse, configs[0] if configs else None)
    if rehearse:  # one command makes the runs, and the tree
        command = f"{steps[0].command} {shlex.join(more)}"
        steps = [replace(each, command=command) for each in steps]
    else:
        command = steps[-1].command.partition(" --about ")[0]
        steps[-1] = replace(steps[-1], command=f"{command} {shlex.join([*more, '--output', 'submission'])}")
    emit("submit", [asdict(each) for each in steps], _planned(steps), as_json)
    return ExitCode.OK


def _planned(steps: Sequence[Step]) -> Iterator[RenderableType]:
    """A table, and the commands that are still to be typed, each on a line of its own."""
    yield grid(("<step", ">minutes", "<state", "why"), map(_line, steps))
    left = [each for each in steps if each.done is None]
    least = "at least " if any(each.at_least for each in left) else ""
    yield f"to be typed, {least}{duration(60 * sum(each.minutes for each in left))} in all:"
    yield from dict.fromkeys(each.command for each in left)


def _line(step: Step) -> list[str]:
    minutes = f"{'>= ' if step.at_least else ''}{step.minutes:.1f}"
    name = f"{step.scenario} {step.role}" if step.scenario else "the tree"
    return [name, minutes, "done" if step.done else "missing", f"run {step.done}" if step.done else step.why]
