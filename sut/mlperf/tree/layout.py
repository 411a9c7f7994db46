"""A tree as it lies on the disk: read once, without following links or waiting, and what was found on the way."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from plugins.files import read_file
from sut.errors import reason_of
from sut.mlperf.finding import Finding, Rule
from sut.mlperf.tree.rules import TreeRule
from sut.text import printable, shortened

DIVISIONS = ("closed", "open", "network")
MOST_ENTRIES = 200_000
"""Files and folders; a round of all submitters has some 50,000."""
MOST_BYTES = 50 * 2**20
"""Of one file, in MLCommons' tools."""


class Kind(Enum):
    """What stands at a path."""

    FILE = auto()
    FOLDER = auto()
    OTHER = auto()
    """It is named in a finding, and nothing more is said of it."""


@dataclass(slots=True)
class Tree:
    """Paths are named from ``root``, with ``/``, as the file system has them."""

    root: Path
    kinds: dict[str, dict[str, Kind]] = field(default_factory=dict)
    """By folder, then by name; the root's folder is "" and has the divisions."""
    found: list[Finding] = field(default_factory=list)
    said: list[tuple[str, str, str]] = field(default_factory=list)
    """What people have written of the submission: path, field, text."""
    _content: dict[str, bytes | None] = field(default_factory=dict)

    def add(self, rule: Rule, path: str, name: str, got: object, expected: str) -> None:
        """A finding about ``path``; ``name`` is the field."""
        said = "nothing" if got is None else shortened(printable(str(got)))
        self.found.append(Finding(rule, printable(path), printable(name), said, expected))

    def why(self, path: str, error: ValueError) -> str:
        """What is wrong with a file, without its way from elsewhere."""
        return str(error).replace(str(self.root / path), path.rpartition("/")[2])

    def kind(self, path: str) -> Kind | None:
        """What stands at a path; None where there is nothing."""
        folder, _, name = path.rpartition("/")
        return self.kinds.get(folder, {}).get(name)

    def names(self, folder: str, kind: Kind | None = None) -> list[str]:
        """What a folder has, of one kind or of all, in order."""
        return sorted(name for name, each in self.kinds.get(folder, {}).items() if kind in (None, each))

    def has_folder(self, path: str, expected: str) -> bool:
        """Whether there is this folder that must be there."""
        kind = self.kind(path)
        if kind is None:
            self.add(TreeRule.MISSING, path, "folder", None, expected)
        elif kind is Kind.FILE:
            self.add(TreeRule.FORM, path, "folder", "a file", expected)
        return kind is Kind.FOLDER

    def only(self, folder: str, allowed: Collection[str], rule: TreeRule = TreeRule.EXTRA) -> None:
        """Whatever else the folder has is a finding."""
        for name, kind in self.kinds.get(folder, {}).items():
            if name not in allowed and kind is not Kind.OTHER:
                self.add(rule, f"{folder}/{name}", "name", name, " or ".join(allowed) or "nothing")

    def read(self, path: str) -> bytes | None:
        """What a file holds that must be there; None, and a finding, where it holds nothing."""
        if path not in self._content:
            self._content[path] = self._read(path)
        return self._content[path]

    def seen(self, path: str) -> bytes:
        """What a file holds that was read already; nothing else."""
        return self._content.get(path) or b""

    def _read(self, path: str) -> bytes | None:
        kind = self.kind(path)
        if kind is None:
            self.add(TreeRule.MISSING, path, "file", None, "the file")
        elif kind is Kind.FOLDER:
            self.add(TreeRule.FORM, path, "file", "a folder", "a file")
        elif kind is Kind.FILE:
            try:
                content = read_file(self.root / path, MOST_BYTES)
            except OSError as error:
                self.add(TreeRule.UNREADABLE, path, "file", reason_of(error), "a file that can be read")
                return None
            if content.strip():
                return content
            self.add(TreeRule.EMPTY, path, "file", f"{len(content)} bytes", "something")
        return None

    def text(self, path: str) -> str | None:
        """The same of a text."""
        content = self.read(path)
        if content is None:
            return None
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            self.add(TreeRule.FORM, path, "file", error, "UTF-8")
            self._content[path] = None
            return None

    def json(self, path: str) -> dict[str, Any] | None:
        """The same of a JSON object."""
        if (text := self.text(path)) is None:
            return None
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.add(TreeRule.FORM, path, "file", error, "a JSON object")
            return None
        if not isinstance(values, dict):
            self.add(TreeRule.FORM, path, "file", f"a JSON {type(values).__name__}", "a JSON object")
            return None
        return values


def read_tree(root: Path) -> Tree:
    """The tree below ``root``: what its divisions hold.

    Raises ``ValueError`` where it is no folder that can be read, has no division, or more than ``MOST_ENTRIES``.
    """
    tree, shown = Tree(root), printable(str(root))
    try:
        top = _entries(tree, "")
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown}: cannot be read ({reason_of(error)}); give the folder of a submission") from error
    for name in sorted({*top} - {*DIVISIONS}):
        tree.add(TreeRule.EXTRA, name, "name", name, " or ".join(DIVISIONS))
    waiting = [name for name in DIVISIONS if name in top]
    if not waiting:
        raise ValueError(f"{shown}: holds neither {' nor '.join(DIVISIONS)}; give the folder that a submission lies in")
    tree.kinds[""] = {name: _kind(tree, name, top[name]) for name in waiting}
    entries = 0
    while waiting:
        folder = waiting.pop()
        if tree.kind(folder) is not Kind.FOLDER:
            continue
        inside = tree.kinds[folder] = _inside(tree, folder)
        waiting += [f"{folder}/{name}" for name in inside]
        entries += len(inside)
        if entries > MOST_ENTRIES:
            raise ValueError(f"{shown}: has more than {MOST_ENTRIES:,} files and folders")
    return tree


def _entries(tree: Tree, folder: str) -> dict[str, os.stat_result]:
    with os.scandir(tree.root / folder) as entries:
        return {entry.name: entry.stat(follow_symlinks=False) for entry in entries}


def _inside(tree: Tree, folder: str) -> dict[str, Kind]:
    try:
        entries = _entries(tree, folder)
    except OSError as error:
        tree.add(TreeRule.UNREADABLE, folder, "folder", reason_of(error), "a folder that can be read")
        return {}
    for name in entries:
        _check_name(tree, f"{folder}/{name}", name)
    return {name: _kind(tree, f"{folder}/{name}", status) for name, status in entries.items()}


def _kind(tree: Tree, path: str, status: os.stat_result) -> Kind:
    if stat.S_ISDIR(status.st_mode):
        return Kind.FOLDER
    if stat.S_ISLNK(status.st_mode):
        tree.add(TreeRule.LINK, path, "kind", "a link", "a file or folder of its own")
        return Kind.OTHER
    if not stat.S_ISREG(status.st_mode):
        tree.add(TreeRule.KIND, path, "kind", "a named pipe, socket or device", "a file or folder")
        return Kind.OTHER
    if status.st_size > MOST_BYTES:
        tree.add(TreeRule.LARGE, path, "bytes", f"{status.st_size:,}", f"at most {MOST_BYTES:,}")
        return Kind.OTHER
    return Kind.FILE


def _check_name(tree: Tree, path: str, name: str) -> None:
    """Git and MLCommons' tools want no blanks and no dot at the start; what is no UTF-8 stands in no JSON."""
    if name.startswith(".") or any(each.isspace() or not each.isprintable() or each == "\\" for each in name):
        tree.add(TreeRule.NAME, path, "name", name, "printable UTF-8 without blanks, and no dot at the start")
