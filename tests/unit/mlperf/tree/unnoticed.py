"""What the judge does not notice: each file, field and line of good trees is deleted, emptied and altered in turn.

``python -m tests.unit.mlperf.tree.unnoticed`` writes what came of it, and the rules, into docs/submission-check.md.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sut.mlperf.tree.judge import judge_tree
from sut.mlperf.tree.rules import TreeRule
from tests.children import CHECKOUT
from tests.unit.mlperf.tree import trees
from tests.unit.mlperf.tree.logs import DETAIL, ROLES
from tests.unit.mlperf.tree.trees import ANSWERS, CLOSED, OPEN, OPEN_MODEL, Folder

PAGE = CHECKOUT / "docs/submission-check.md"
FILE, DELETED, EMPTIED, ALTERED, RETYPED = "the file itself", "deleted", "emptied", "altered", "of another type"

Change = tuple[str, str, bytes | None]
"""What is changed, how, and the file's new content: None where it is gone."""


def one_scenario(root: Path) -> Folder:
    """A closed tree of a single scenario: that others are missing is found before and after each change."""
    tree = Folder(root)
    trees.system(tree, CLOSED, "closed", "edge", trees.MODEL)
    tree.write(f"{CLOSED}/calibration.md", "Nothing was calibrated.\n")
    trees.scenario(tree, f"{trees.RESULTS}/SingleStream", "SingleStream", 0, ROLES)
    return tree


def open_tree(scenario: str, root: Path) -> Folder:
    tree = Folder(root)
    trees.system(tree, OPEN, "open", "datacenter,edge", OPEN_MODEL)
    tree.write(f"{OPEN}/model_mapping.json", json.dumps({OPEN_MODEL: "resnet"}))
    trees.scenario(tree, f"{trees.OPEN_RESULTS}/{scenario}", scenario, 0, ROLES[:2])
    return tree


def changes(path: Path) -> Iterator[Change]:
    """All that is done to a file."""
    content = path.read_bytes()
    yield FILE, DELETED, None
    yield FILE, EMPTIED, b""
    yield FILE, ALTERED, b"something else\n"
    if path.name == DETAIL:
        yield from _entries(content.decode().splitlines(keepends=True))
    elif path.name == ANSWERS:
        yield "an answer", ALTERED, content.replace(b"00002743", b"0000A242", 1)
        yield "an answer", DELETED, content[content.index(b"\n") + 1 :]
    elif path.suffix == ".json":
        values = json.loads(content)
        for name, value in values.items():
            yield name, DELETED, _json({each: values[each] for each in values if each != name})
            for how, other in _others(value):
                yield name, how, _json(values | {name: other})
    else:
        lines = content.decode().splitlines(keepends=True)
        for number, line in enumerate(lines):
            name = line.replace("=", ":").partition(":")[0].strip() if line.strip() else ""
            if name and set(name) != {"="}:
                for how, other in ((DELETED, ""), (ALTERED, _altered(line.rstrip("\n")) + "\n")):
                    yield name, how, "".join([*lines[:number], other, *lines[number + 1 :]]).encode()


def _entries(lines: list[str]) -> Iterator[Change]:
    for number, line in enumerate(lines):
        entry = json.loads(line.removeprefix(":::MLLOG "))
        before, after = lines[:number], lines[number + 1 :]
        yield entry["key"], DELETED, "".join([*before, *after]).encode()
        for how, other in _others(entry["value"]):
            changed = f":::MLLOG {json.dumps(entry | {'value': other})}\n"
            yield entry["key"], how, "".join([*before, changed, *after]).encode()


def _others(value: Any) -> Iterator[tuple[str, object]]:
    """Emptied, altered, of another type."""
    yield EMPTIED, ""
    if isinstance(value, bool):
        yield ALTERED, not value
    else:
        yield ALTERED, 2 * value + 1 if isinstance(value, int | float) else _altered(value)
    yield RETYPED, [value]


def _altered(text: str) -> str:
    """The last digit is another; a text without any has a word more."""
    for place in range(len(text) - 1, -1, -1):
        if text[place].isdigit():
            return f"{text[:place]}{(int(text[place]) + 5) % 10}{text[place + 1 :]}"
    return f"{text} more"


def _json(values: dict[str, object]) -> bytes:
    return json.dumps(values).encode()


Unnoticed = dict[str, dict[str, list[str]]]
"""By file and by what was done, all names of what it was done to."""


def unnoticed(logs: bool) -> Unnoticed:
    """What makes no difference to the findings; of all but detail logs, or of those."""
    found: Unnoticed = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (
            ("closed", one_scenario),
            *((each, lambda root, each=each: open_tree(each, root)) for each in ("Offline", "MultiStream", "Server")),
        ):
            root = Path(folder) / name
            make(root)
            known: set[str] = set(found)
            for path in sorted(root.rglob("*")):
                label = _label(path.relative_to(root))
                if path.is_file() and (path.name == DETAIL) is logs and (logs or label not in known):
                    _try(root, path, found.setdefault(label, {}))
    return {file: ways for file, ways in found.items() if ways}


def _try(root: Path, path: Path, found: dict[str, list[str]]) -> None:
    content, before = path.read_bytes(), judge_tree(root)
    for name, how, new in changes(path):
        path.unlink()
        if new is not None:
            path.write_bytes(new)
        if judge_tree(root) == before:
            names = found.setdefault(how, [])
            names += [name] if name not in names else []
        path.write_bytes(content)


def _label(path: Path) -> str:
    """A file's place in any submission."""
    text = str(path).replace(f"/{trees.SUBMITTER}/", "/SUBMITTER/").replace(trees.SYSTEM, "SYSTEM")
    text = text.replace(f"/{trees.MODEL}/", "/MODEL/").replace(f"/{OPEN_MODEL}/", "/MODEL/")
    head, _, tail = text.partition("/results/SYSTEM/MODEL/")
    scenario, _, tail = tail.partition("/")
    if not tail:
        return head.replace("closed/", "").replace("open/", "")
    if tail.endswith(DETAIL):
        return f"{'an accuracy' if tail.startswith('accuracy') else 'a performance'} run's {DETAIL}"
    return f"{scenario}: {tail}" if tail == "user.conf" else f"SCENARIO: {tail}"


def rows(found: Unnoticed) -> list[str]:
    """The table's rows."""
    return [
        f"| {file} | {how} | {', '.join(f'`{name}`' if name != FILE else name for name in names)} |"
        for file, ways in sorted(found.items())
        for how, names in sorted(ways.items())
    ]


def rules() -> list[str]:
    """A row for each rule."""
    return [f"| {rule} | {rule.severity} |" for rule in TreeRule]


def _write(start: str, lines: list[str]) -> None:
    head, _, tail = PAGE.read_text().partition(start)
    _, _, tail = tail.partition("\n\n")
    PAGE.write_text(head + "\n".join([start, *lines]) + "\n\n" + tail)


RULES = "| what is wrong | how bad |\n| --- | --- |"
NOT_NOTICED = "| file | what was done | to |\n| --- | --- | --- |"

if __name__ == "__main__":
    _write(RULES, rules())
    _write(NOT_NOTICED, rows(unnoticed(logs=False) | unnoticed(logs=True)))
