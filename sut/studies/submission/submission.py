"""From runs to a tree, and what the judge says of one: what counts, and what a rehearsal lets pass."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plugins.files import SMALL_BYTES, read_file
from sut.errors import InputError, one_line, refusing, writing
from sut.mlperf.finding import Finding, Severity
from sut.mlperf.tree.judge import REHEARSAL, judge_tree
from sut.mlperf.tree.rules import TreeRule
from sut.studies.submission.about import About
from sut.studies.submission.checks import faults, relaxed
from sut.studies.submission.runs import Runs
from sut.studies.submission.systems import missing_fields
from sut.studies.submission.tree import check_place, write_tree

_RELAXED = frozenset(
    {
        *(TreeRule.MIN_DURATION, TreeRule.LENGTH, TreeRule.COUNT, TreeRule.SAMPLES),
        *(TreeRule.PICTURES, TreeRule.TARGET, TreeRule.MODEL, TreeRule.RATIO, TreeRule.REHEARSAL),
    }
)
"""What a rehearsal does without: MLPerf's durations, pictures and model, and audits' scores, being of short runs."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge finds in the tree at ``root``, apart from what is let pass because it is a rehearsal's."""

    root: Path
    is_rehearsal: bool
    relaxed: tuple[Finding, ...]
    findings: tuple[Finding, ...]

    @property
    def accepted(self) -> bool:
        """Whether there is nothing but doubts, of a rehearsal beside what it relaxes."""
        return all(each.severity is Severity.DOUBT for each in self.findings)


def judge(root: Path) -> Judged:
    """Judge a tree, whoever made it. Raises ``InputError`` where there is none."""
    try:
        findings = judge_tree(root)
    except ValueError as error:
        raise InputError(one_line(error)) from error
    is_rehearsal = any(each.rule is TreeRule.REHEARSAL for each in findings)
    passed = [each for each in findings if is_rehearsal and each.rule in _RELAXED]
    return Judged(root, is_rehearsal, tuple(passed), tuple(each for each in findings if each not in passed))


def refusals(runs: Runs, about: About, is_rehearsal: bool) -> list[str]:
    """All that keeps runs from being a submission, or from being the rehearsal of one: a line each."""
    untold = [] if is_rehearsal else missing_fields(runs, about)
    return [*faults(runs, about, is_rehearsal), *(f"fields.{name}: not told; tell it in the file" for name in untold)]


def check_target(target: Path, about: About, is_rehearsal: bool, overwrite: bool) -> None:
    """Raise ``InputError`` where a tree could not be written: known before anything is run for one."""
    if not _is_replaced(target, about, is_rehearsal, overwrite):
        check_place(target, about, is_rehearsal)


def make_tree(runs: Runs, about: About, target: Path, is_rehearsal: bool, overwrite: bool) -> list[Path]:
    """Write the tree of finished runs, whole or not at all. Returns its files.

    A rehearsal's takes the place of an earlier one of the same system alone, with ``overwrite`` any tree that of any
    rehearsal. Raises ``InputError`` as ``write_tree`` does.
    """
    rules = relaxed(runs, about) if is_rehearsal else None
    if not _is_replaced(target, about, is_rehearsal, overwrite):
        return write_tree(runs, about, target, rules)
    with _aside(_home(target, about)):
        return write_tree(runs, about, target, rules)


def _home(target: Path, about: About) -> Path:
    return target / about.division / about.submitter


def _is_replaced(target: Path, about: About, is_rehearsal: bool, overwrite: bool) -> bool:
    """Whether the submitter's folder makes room for a new one. Raises ``InputError`` where that is asked in vain."""
    systems = [path.name for path in _home(target, about).glob("systems/*")]
    again = is_rehearsal and systems == [f"{about.system}.json"]
    return (overwrite or again) and _is_in_the_way(target, about)


def _is_in_the_way(target: Path, about: About) -> bool:
    """Whether there is a rehearsal's tree to be replaced. Raises ``InputError`` where it is another."""
    home = _home(target, about)
    if not os.path.lexists(home):
        return False
    texts = [] if home.is_symlink() else [*home.rglob("README.md")]
    with refusing(str(home)):
        is_rehearsal = texts and all(read_file(each, SMALL_BYTES).startswith(REHEARSAL.encode()) for each in texts)
    if not is_rehearsal:
        raise InputError(f"{home} is no rehearsal, and nothing else is replaced; choose another --output")
    return True


@contextmanager
def _aside(home: Path) -> Iterator[None]:
    """Have a folder out of the way for the ``with``: it is back where that fails, else gone."""
    kept = home.with_name(f".{home.name}.{secrets.token_hex(8)}.part")
    with writing(home):
        home.rename(kept)
    try:
        yield
    except BaseException:
        kept.rename(home)
        raise
    shutil.rmtree(kept, ignore_errors=True)
