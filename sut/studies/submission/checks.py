"""Whether runs are a submission, or the rehearsal of one: everything that keeps them from it, not the first alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sut.config import NOT_HASHED, RunConfig, make_config
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.logs import DETAIL, read_detail
from sut.results.machine import differs
from sut.results.schema import Result
from sut.studies.proof.finding import told
from sut.studies.submission.about import About
from sut.studies.submission.commands import asked_of, command_of, matters
from sut.studies.submission.fault import Fault
from sut.studies.submission.one_run import audit_faults, dataset_of, log_doubts, log_faults, run_faults
from sut.studies.submission.runs import Run, Runs, roles_of, scenarios_of
from sut.version import NAME

_MODEL = ("model", "model_sha256", "recipe", "loaded_sha256")
"""Who the model is: the first that differs is told, since the rest follows from it."""
_RUNTIME = ("backend_version", "device_name")
_ATTESTED = ("provider", "precision", "model")
_OWN = frozenset({*NOT_HASHED, "model", "model_name", "recipe", "rules", "time_s", "qps"})
"""Settings that are told of otherwise, or that each run may have for itself."""

_NO_DATA = "the data set is not there any more, so its list, and the score by it, were not looked at again"


def faults(runs: Runs, about: About, rehearsal: bool) -> list[str]:
    """Everything that keeps the runs from being a submission, or a rehearsal: scenario, role and field in a line each.

    In order: what is missing, each run by itself, all against each other, audits.
    """
    return [fault.text for fault in _found(runs, about, rehearsal) if not (rehearsal and fault.is_relaxed)]


def relaxed(runs: Runs, about: About) -> list[str]:
    """What keeps the runs from being a submission, and not from being a rehearsal: what several have in common once."""
    found: dict[str, list[str]] = {}
    for fault in _found(runs, about, rehearsal=True):
        if fault.is_relaxed:
            where, _, what = fault.text.partition(", ")
            found.setdefault(what, []).append(where)
    return [f"{where[0]}, {what}" if len(where) == 1 else f"{len(where)} runs, {what}" for what, where in found.items()]


def warnings(runs: Runs) -> list[str]:
    """What a reader of the submission must know, and what may count all the same."""
    found: list[str] = []
    notes: dict[str, list[str]] = {}
    for run in runs.all():
        result = run.result
        if result.quiet is None:
            found.append(f"{run.name}, quiet: nothing is known of what else ran")
        elif result.is_busy:
            found.append(f"{run.name}, quiet: {result.quiet.line()}")
        if result.clock_change_ns is None:
            found.append(f"{run.name}, clock_change_ns: nothing is known of the clock")
        found += [f"{run.name}, gpus: {words}" for gpu in result.gpus or () for words in gpu.warnings()]
        found += log_doubts(run)
        if dataset_of(result) is None:
            notes.setdefault(_NO_DATA, []).append(run.name)
        for note in result.notes:
            if result.audit is None or note != result.audit.words:
                notes.setdefault(note, []).append(run.name)
    found += [f"{', '.join(names)}, notes: {note}" for note, names in notes.items()]
    dirty = sorted({version for run in runs.all() if (version := _project(run.result)).endswith("-dirty")})
    return found + [f"versions.{NAME}: {version} is no commit: files were changed" for version in dirty]


def _found(runs: Runs, about: About, rehearsal: bool) -> Iterator[Fault]:
    yield from _missing(runs, about, rehearsal)
    doubled = dict(_doubled(runs))
    for run in runs.all():
        yield from run_faults(run, about.division)
        if run.name in doubled:  # of another run's log nothing more is told
            got = f"the log of {doubled[run.name]}"
            hint = "a log of its own; what is inferred from another scenario is named in 'inferred', and not run"
            yield Fault.of(f"{run.name}/{DETAIL}", "content", got, hint)
        else:
            yield from log_faults(run)
    yield from _different(runs.all())
    for entry in runs.entries.values():
        for role in official.AUDITS:
            if entry.inferred_from is None and role in entry.runs:
                yield from audit_faults(entry.runs[role], entry.runs)


def _missing(runs: Runs, about: About, rehearsal: bool) -> Iterator[Fault]:
    asked = scenarios_of(about, runs.benchmark)
    closed = scenarios_of(about.model_copy(update={"scenarios": ()}), runs.benchmark)
    if about.is_closed and set(asked) != set(closed):
        yield Fault.of("scenarios", about.system_type, ", ".join(asked), ", ".join(closed))
    for scenario in dict.fromkeys((*(asked or runs.entries), *about.inferred.values())):
        there = runs.entries[scenario].runs if scenario in runs.entries else {}
        for role in roles_of(about, runs.benchmark):
            if role not in there and scenario not in about.inferred:
                yield Fault(f"{scenario} {role}: there is no such run{_remedy(runs, about, rehearsal, scenario, role)}")


def _remedy(runs: Runs, about: About, rehearsal: bool, scenario: str, role: str) -> str:
    try:
        config = make_config(runs.all()[0].result.config)
    except (IndexError, InputError):  # of another version
        return ""
    command = command_of(asked_of(config, about, rehearsal, runs.home), scenario, role, runs.home, rehearsal)
    asked = about.is_closed or scenario in about.scenarios
    return f"; make it: {command}" + ("" if asked else "; or leave it out: name the others in 'scenarios'")


def _doubled(runs: Runs) -> Iterator[tuple[str, str]]:
    """Runs whose log is that of an earlier one, by their names: two runs do not begin and end in the same moments."""
    seen: dict[tuple[Any, Any], str] = {}
    for run in runs.all():
        try:
            values = read_detail(run.folder).values
        except ValueError:
            continue  # told of its log
        moment = (values.get("power_begin"), values.get("power_end"))
        if None not in moment and seen.setdefault(moment, run.name) != run.name:
            yield run.name, seen[moment]


def _different(runs: Sequence[Run]) -> Iterator[Fault]:
    """Where runs are not of one model, configuration, machine and version: each against the first."""
    for run in runs[1:]:
        yield from _against(run, runs[0])
    for field in sorted(set(RunConfig.model_fields) - _OWN):
        told_by = [run for run in runs if matters(field, run.result.config)]
        for run in told_by[1:]:
            got, first = (each.result.config.get(field) for each in (run, told_by[0]))
            if got != first:
                yield Fault.of(run.name, f"config.{field}", told(got), f"{told(first)} ({told_by[0].name})")


def _against(run: Run, first: Run) -> Iterator[Fault]:
    ours, theirs = run.result, first.result
    pairs = {name: (getattr(ours, name), getattr(theirs, name)) for name in (*_MODEL, *_RUNTIME)}
    pairs |= {f"attested.{name}": (ours.attested.get(name), theirs.attested.get(name)) for name in _ATTESTED}
    both = ours.loaded_sha256.keys() & theirs.loaded_sha256.keys()
    loaded = ({name: each.loaded_sha256[name] for name in both} for each in (ours, theirs))
    pairs["loaded_sha256"] = next(loaded), next(loaded)
    unlike = [name for name, (got, right) in pairs.items() if got != right]
    of_model = [name for name in unlike if name in _MODEL]
    for name in [*of_model[:1], *unlike[len(of_model) :]]:
        got, right = pairs[name]
        yield Fault.of(run.name, name, told(got), f"{told(right)} ({first.name})")
    if machine := differs(ours.system, theirs.system):
        yield Fault.of(run.name, "system", f"another machine ({'; '.join(machine)})", f"that of {first.name}")
    packages = sorted({*ours.versions, *theirs.versions})
    others = [name for name in packages if ours.versions.get(name) != theirs.versions.get(name)]
    if others:
        got, right = (", ".join(f"{name} {each.versions.get(name)}" for name in others) for each in (ours, theirs))
        yield Fault.of(run.name, "versions", told(got), f"{told(right)} ({first.name})")


def _project(result: Result) -> str:
    return str(result.versions.get(NAME))
