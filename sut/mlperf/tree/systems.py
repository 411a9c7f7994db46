"""What a submission says of its systems."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sut.mlperf import official
from sut.mlperf.tree.layout import Tree
from sut.mlperf.tree.rules import TreeRule

DATACENTER_EDGE = ("datacenter,edge", "edge,datacenter")
TYPES = ("edge", "datacenter", *DATACENTER_EDGE)
_MOST_DIGITS = 9


def judge_system(tree: Tree, path: str, division: str, submitter: str) -> str | None:
    """Judges a system's file. Returns its type, None where it has none that is known."""
    fields = tree.json(path)
    if fields is None:
        return None
    check_fields(tree, path, fields, official.SYSTEM_FIELDS, official.SYSTEM_FREE_FIELDS)
    for name, wanted in (("division", division), ("submitter", submitter)):
        if says_something(got := fields.get(name)) and got != wanted:
            tree.add(TreeRule.NAMES, path, name, got, wanted)
    types = TYPES if division == "open" else ("edge", *DATACENTER_EDGE)
    for name, allowed in (("status", official.STATUSES), ("system_type", types)):
        if says_something(got := fields.get(name)) and got not in allowed:
            tree.add(TreeRule.VALUE, path, name, got, " or ".join(allowed))
    for name, least in (("number_of_nodes", 1), ("accelerators_per_node", 0)):
        if says_something(got := fields.get(name)) and not _counts(got, least):
            tree.add(
                TreeRule.VALUE, path, name, got, f"a whole number of {least} or more" + ', none as "0"' * (not least)
            )
    tree.said.append((path, "sw_notes", str(fields.get("sw_notes"))))
    kind = fields.get("system_type")
    return kind if kind in TYPES else None


def check_fields(
    tree: Tree, path: str, fields: dict[str, Any], meant: Iterable[str], empty: Iterable[str] = ()
) -> None:
    """Fields that must say something, and others that must be there."""
    for name in meant:
        if not says_something(fields.get(name)):
            tree.add(TreeRule.FIELD, path, name, fields.get(name), "a text that says something")
    for name in empty:
        if not isinstance(fields.get(name), str):
            tree.add(TreeRule.FIELD, path, name, fields.get(name), "a text, which may be empty")


def says_something(value: object) -> bool:
    """Whether the checkers take it for an answer: a text that is not blank, or a number; 0 is none to them."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(value)


def _counts(value: object, least: int) -> bool:
    text = str(value)
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) >= least
