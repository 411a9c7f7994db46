"""Writes a submission's tree, whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from plugins.files import LARGE_BYTES, SMALL_BYTES, read_file
from sut.errors import InputError, one_line, reason_of, writing
from sut.mlperf.accuracy import (
    SCORE_FILE,
    SCORE_LINES,
    accuracy_file,
    is_truncated,
    log_sha256,
    parse_accuracy_log,
    truncated,
)
from sut.mlperf.logs import ACCURACY, DETAIL, SUMMARY, read_detail
from sut.mlperf.tree.judge import REHEARSAL
from sut.results.schema import Result, dump_json
from sut.studies.submission.about import About, folder_name
from sut.studies.submission.runs import Entry, Run, Runs
from sut.studies.submission.settings import measurements, user_conf
from sut.studies.submission.systems import missing_fields, system_json
from sut.studies.submission.words import calibration_section, document, scenario_readme, source_section
from sut.tasks.top1 import top1_score

_PATH = re.compile(r"(?<![\w.:/<])/(?:[\w.+~-]+/)+[\w.+~-]*")
_LOADGEN_FILES = '"loadgen_file_sha1"'
"""The entry of a detail log with paths that are LoadGen's own."""


def write_tree(runs: Runs, about: About, target: Path, relaxed: Sequence[str] | None) -> list[Path]:
    """Write ``target/DIVISION/SUBMITTER/...`` from finished runs. Returns the files that were written.

    ``relaxed`` is None for a submission; else the rules that a rehearsal relaxes, which its texts then list. Nothing is
    left behind where this fails or is interrupted. Other systems of the submitter are kept.

    Raises ``InputError`` where this system's part is there already, a run, a file or a field is missing, or an accuracy
    log is truncated, or changes meanwhile; and where nothing can be written.
    """
    home = _home(target, about)
    check_place(target, about, relaxed is not None)
    if missing := missing_fields(runs, about):
        told = f"systems/{about.system}.json: not told: {', '.join(missing)}"
        if relaxed is None:
            raise InputError(f"{told}; tell them below 'fields'")
        relaxed = [*relaxed, told]
    model = _model_folder(runs, about)
    files, logs = _contents(runs, about, model, relaxed)
    shared = _shared(runs, about, model, relaxed, home)
    with writing(target), ExitStack() as leftovers:
        _make(home.parent, leftovers)
        staged = home.with_name(f".{about.submitter}.{secrets.token_hex(8)}.part")
        leftovers.callback(shutil.rmtree, staged, ignore_errors=True)
        for name, content in {**files, **shared}.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes(content)
        _check_hashes(staged, logs)
        if home.exists():
            _add(staged, home, [f"results/{about.system}", f"systems/{about.system}.json", *shared])
        else:
            staged.rename(home)
    return [home / name for name in sorted({**files, **shared})]


def check_place(target: Path, about: About, is_rehearsal: bool) -> None:
    """Raise ``InputError`` where a tree would be written over anything, or a rehearsal be mixed with what is none."""
    home = _home(target, about)
    for path in (home / "results" / about.system, home / "systems" / f"{about.system}.json"):
        if os.path.lexists(path):
            raise InputError(
                f"{path} is there already; choose another --output or system (--overwrite replaces a rehearsal's)"
            )
    if not os.path.lexists(home):
        return
    if not all((home / name).is_dir() for name in ("results", "systems")):
        raise InputError(
            f"{home} is there already, and has no results and systems; remove it, or choose another folder"
        )
    for path in sorted(home.glob("src/*/README.md")):
        if _text(path).startswith(REHEARSAL) is not is_rehearsal:
            kinds = ("no rehearsal", "one") if is_rehearsal else ("a rehearsal", "no rehearsal")
            raise InputError(f"{path}: what is there is {kinds[0]}, and this is {kinds[1]}; choose another folder")


def private_words(files: Sequence[Path]) -> list[str]:
    """What files of a tree tell of the machine that is nobody's business: its name, and paths. One line per find."""
    host = re.compile(rf"(?<![\w.-]){re.escape(platform.node() or chr(0))}(?![\w.-])")
    found = []
    for path in files:
        lines = read_file(path, LARGE_BYTES).decode(errors="replace").splitlines()
        text = "\n".join(line for line in lines if _LOADGEN_FILES not in line)
        found += [f"{path}: {word}" for word in dict.fromkeys([*_PATH.findall(text), *host.findall(text)])]
    return found


def _home(target: Path, about: About) -> Path:
    return target / about.division / about.submitter


def _first(runs: Runs) -> Result:
    """A result that tells what all runs have in common."""
    if not runs.entries:
        raise InputError(f"{runs.home}: no runs, expected those of a scenario")
    return _run(runs, next(iter(runs.entries.values())), "performance").result


def _model_folder(runs: Runs, about: About) -> str:
    name = about.model or _first(runs).model
    try:
        return folder_name(name)
    except ValueError as error:
        raise InputError(
            f"the model's name '{name}' cannot be a folder's here: {error}; tell another as 'model'"
        ) from None


def _run(runs: Runs, entry: Entry, role: str) -> Run:
    if role not in entry.runs:
        raise InputError(f"{runs.home}: {entry.scenario} has no {role} run; run it first")
    return entry.runs[role]


def _contents(
    runs: Runs, about: About, model: str, relaxed: Sequence[str] | None
) -> tuple[dict[str, bytes], dict[str, Path]]:
    """The system's own files by their place below the submitter's folder, and the accuracy logs among them."""
    benchmark = runs.benchmark
    files = {f"systems/{about.system}.json": _json(system_json(runs, about, relaxed))}
    logs: dict[str, Path] = {}
    for entry in runs.entries.values():
        place = f"results/{about.system}/{model}/{entry.scenario}"
        performance, accuracy = (_run(runs, entry, role) for role in ("performance", "accuracy"))
        with _told():
            detail, ran = read_detail(performance.folder), entry.inferred_from or entry.scenario
            conf = user_conf(ran, detail, performance.folder, benchmark.conf)
        files |= {
            f"{place}/measurements.json": _json(measurements(performance.result)),
            f"{place}/user.conf": conf.encode(),
            f"{place}/README.md": scenario_readme(entry, about, model, relaxed).encode(),
            **_logs(performance.folder, f"{place}/performance/run_1"),
            **_logs(accuracy.folder, f"{place}/accuracy"),
        }
        _add_answers(files, logs, accuracy.folder, f"{place}/accuracy", benchmark.metric)
        for audit in benchmark.audits if about.is_closed else ():
            folder = _run(runs, entry, audit).folder
            files |= _logs(folder, f"{place}/{audit}/performance/run_1")
            files[f"{place}/{audit}/verify_performance.txt"] = _bytes(folder / "verify_performance.txt")
            if audit == "TEST01":
                files[f"{place}/{audit}/verify_accuracy.txt"] = _bytes(folder / "verify_accuracy.txt")
                _add_answers(files, logs, folder, f"{place}/{audit}/accuracy", benchmark.metric)
    return files, logs


def _shared(runs: Runs, about: About, model: str, relaxed: Sequence[str] | None, home: Path) -> dict[str, bytes]:
    """The files that all systems of a submitter share, with what they say of others already."""
    result = _first(runs)

    def text(name: str, title: str, section: str) -> bytes:
        existing = _text(home / name) if os.path.lexists(home / name) else None
        return document(existing, title, about, model, section, relaxed).encode()

    ran = dict.fromkeys(entry.inferred_from or entry.scenario for entry in runs.entries.values())
    source = f"src/{model}/README.md"
    found = {source: text(source, f"How {model} was run", source_section(result, [*ran], about, model))}
    if about.is_closed:
        found["calibration.md"] = text("calibration.md", "Calibration", calibration_section(result))
    elif not re.fullmatch(runs.benchmark.folders, model):
        found["model_mapping.json"] = _json(_mapping(home / "model_mapping.json") | {model: runs.benchmark.judged_as})
    return found


def _mapping(path: Path) -> dict[str, str]:
    if not os.path.lexists(path):
        return {}
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not JSON of the form {{folder: model}}; mend it first")
    return found


def _logs(folder: Path, place: str) -> dict[str, bytes]:
    """LoadGen's logs, byte for byte."""
    return {f"{place}/{name}": _bytes(folder / name) for name in (DETAIL, SUMMARY)}


def _add_answers(files: dict[str, bytes], logs: dict[str, Path], folder: Path, place: str, metric: str) -> None:
    """Add accuracy.txt with the hash of the whole accuracy log, and that log's two ends."""
    source = folder / ACCURACY
    whole = _bytes(source)
    with _told():
        parse_accuracy_log(whole, source)
        sha256 = log_sha256(whole)
    form, example = SCORE_LINES[metric]
    if (match := form.match(_text(folder / SCORE_FILE))) is None or (metric == "top1" and not int(match[3])):
        raise InputError(f"{folder / SCORE_FILE}: expected '{example}', or the like, in its first line")
    line = top1_score(int(match[2]), int(match[3])).text if metric == "top1" else match[0].rstrip()
    files[f"{place}/{SCORE_FILE}"] = accuracy_file(line, sha256).encode()
    files[f"{place}/{ACCURACY}"] = truncated(whole)
    logs[f"{place}/{ACCURACY}"] = source


def _check_hashes(staged: Path, logs: Mapping[str, Path]) -> None:
    """Whether what was written of accuracy logs, and their hashes, still are those of the logs as they are now."""
    for name, source in logs.items():
        written, whole = staged / name, _bytes(source)
        told = written.with_name("accuracy.txt").read_text(encoding="utf-8")
        fits = not is_truncated(whole) and f"hash={log_sha256(whole)}\n" in told
        if not fits or written.read_bytes() != truncated(whole):
            raise InputError(f"{source} no longer fits its hash: it changed while it was packed; pack it again")


def _add(staged: Path, home: Path, parts: Sequence[str]) -> None:
    """Move parts into a folder that is there: all of them, or none. What they take the place of is in ``staged``."""
    with ExitStack() as undo:
        for part in parts:
            new, place, old = staged / part, home / part, staged / f"{part}.old"
            _make(place.parent, undo)
            undo.callback(_move, old, place)
            _move(place, old)
            undo.callback(_move, place, new)
            new.rename(place)
        undo.pop_all()


def _move(path: Path, to: Path) -> None:
    if os.path.lexists(path):
        path.rename(to)


def _make(folder: Path, undo: ExitStack) -> None:
    """Make a folder; ``undo`` removes it, and what was made for it, where that is empty by then."""
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    undo.callback(_remove_empty, missing)
    folder.mkdir(parents=True, exist_ok=True)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path, LARGE_BYTES)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({reason_of(error)}), and belongs into the tree; run it again"
        ) from None


def _text(path: Path) -> str:
    try:
        return read_file(path, SMALL_BYTES).decode()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as text ({reason_of(error)})") from None


@contextmanager
def _told() -> Iterator[None]:
    """A log that does not do, as the user's error."""
    try:
        yield
    except ValueError as error:
        raise InputError(one_line(error)) from None


def _json(value: Mapping[str, str]) -> bytes:
    return dump_json(value).encode()
