"""Judges all logs below folders: each by itself, and whether one lies there under several names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plugins.files import sha256_of
from sut.errors import one_line
from sut.mlperf import official
from sut.mlperf.finding import Finding, Rule, Severity
from sut.mlperf.judge_log import Place, judge_log, place_of
from sut.mlperf.logs import DETAIL, SUMMARY
from sut.mlperf.reference_results import REFERENCE_FILE, is_reference, judge_reference

_OURS = "result.json"


class SeveralRule(Rule):
    """What a finding about several logs is about."""

    SAME = "one log under several names", Severity.INVALID


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found below some folders. ``findings`` name files as the folders were named; ``unread`` says which of
    ``logs`` could not be read, and why.
    """

    logs: int
    findings: tuple[Finding, ...]
    unread: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether there is nothing but doubts."""
        return all(each.severity is Severity.DOUBT for each in self.findings)


def judge_logs(roots: Sequence[Path]) -> Judged:
    """Judges LoadGen's logs and the reference harness's results.json below ``roots``, or named by them, each once.

    Folders behind links are not looked into, nor those with a dot before their name.
    """
    findings: list[Finding] = []
    unread: list[str] = []
    places: list[tuple[Path, Place, str]] = []
    count = 0
    for folder, called, name in _found(roots, unread):
        count += 1
        try:
            if name == REFERENCE_FILE:
                of_log = judge_reference(folder / name, alone=not (folder / _OURS).exists())
            else:
                of_log = judge_log(folder, called=called)
                places.append((folder, place_of(called), sha256_of(folder / name)))
        except (ValueError, OSError) as error:
            unread.append(one_line(error))
            continue
        findings += [replace(each, file=str(folder / each.file)) for each in of_log]
    findings += _same(places)
    return Judged(count, tuple(findings), tuple(unread))


def _found(roots: Sequence[Path], unread: list[str]) -> Iterator[tuple[Path, Path, str]]:
    """Folder, what it is called from its root on, and the file that makes it one."""
    seen: set[tuple[Path, str]] = set()
    for root in roots:
        top = root if root.is_dir() else root.parent
        begin = Path(top.absolute().name)
        if not root.exists():
            unread.append(f"{root}: No such file or folder")
            continue
        walk: list[tuple[str, list[str], list[str]]]
        if top is not root:
            walk = [(str(top), [], [root.name])]
        else:
            walk = list(os.walk(top, onerror=lambda error: unread.append(f"{error.filename}: {error.strerror}")))
        before = len(seen), len(unread)
        for where, _, names in sorted(walk):
            folder = Path(where)
            inside = folder.relative_to(top)
            if any(part.startswith(".") for part in inside.parts):
                continue
            for name in _logs_of(folder, names):
                key = (folder.resolve(), name)
                if key not in seen:
                    seen.add(key)
                    yield folder, begin / inside, name
        if (len(seen), len(unread)) == before:
            unread.append(f"{root}: no log of LoadGen's in it, nor a results.json of the reference harness")


def _logs_of(folder: Path, names: Sequence[str]) -> list[str]:
    log = [name for name in (DETAIL, SUMMARY) if name in names][:1]
    harness = REFERENCE_FILE in names and is_reference(folder / REFERENCE_FILE)
    return log + ([REFERENCE_FILE] if harness else [])


def _same(places: Sequence[tuple[Path, Place, str]]) -> Iterator[Finding]:
    """A run is one result. On the edge it may also stand for scenarios that are inferred from its own, which
    ``judge_log`` names.
    """
    first: dict[str, tuple[Path, Place]] = {}
    for folder, place, digest in places:
        if digest not in first:
            first[digest] = (folder, place)
            continue
        other, its = first[digest]
        if not _is_inferred(place, its):
            file = next(name for name in (DETAIL, SUMMARY) if (folder / name).exists())
            got = f"that of {other / file}"
            yield Finding(SeveralRule.SAME, str(folder / file), "content", got, "a log of its own")


def _is_inferred(one: Place, other: Place) -> bool:
    if one.role != other.role or one.scenario == other.scenario:
        return False
    names = (one.scenario, other.scenario)
    return any(
        here is not None and there in official.INFERRED.get(here, ()) for here, there in (names, names[::-1])
    ) or set(names) <= set(official.INFERRED)
