"""What a submission says of its systems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sut.mlperf import official
from sut.mlperf.tree.layout import Tree
from sut.mlperf.tree.rules import TreeRule

DATACENTER_EDGE = ("datacenter,edge", "edge,datacenter")
TYPES = ("edge", "datacenter", *DATACENTER_EDGE)
_TYPES = {"open": TYPES, "closed": ("edge", *DATACENTER_EDGE), "network": ("datacenter",)}
_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class System:
    """What a system's file says: its type, None where it has none that is known; whether a network is before it."""

    kind: str | None
    is_network: bool

    @classmethod
    def unknown(cls, division: str) -> System:
        """One that has no file."""
        return cls(None, division == "network")


def judge_system(tree: Tree, path: str, division: str, submitter: str) -> System:
    """Judges a system's file."""
    fields = tree.json(path)
    if fields is None:
        return System.unknown(division)
    check_fields(tree, path, fields, official.SYSTEM_FIELDS, official.SYSTEM_FREE_FIELDS)
    for name, wanted in (("division", division), ("submitter", submitter)):
        if says_something(got := fields.get(name)) and got != wanted:
            tree.add(TreeRule.NAMES, path, name, got, wanted)
    types = _TYPES[division]
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
    return System(kind if kind in TYPES else None, _judge_network(tree, path, division, fields))


def _judge_network(tree: Tree, path: str, division: str, fields: dict[str, Any]) -> bool:
    """Judges what is told of the network. Returns whether there is one: in its division there is, in closed none."""
    name, said = official.IS_NETWORK, fields.get(official.IS_NETWORK)
    says_so = isinstance(said, str) and said.lower() == "true"
    if division == "network" and not says_so:
        tree.add(TreeRule.VALUE if says_something(said) else TreeRule.FIELD, path, name, said, '"true"')
    if division == "closed" and says_so:
        tree.add(TreeRule.VALUE, path, name, said, "nothing: what a network is before is of the division network")
    is_network = says_so or division == "network"
    if is_network:
        check_fields(tree, path, fields, official.SYSTEM_NETWORK_FIELDS)
    return is_network


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
