"""The house has floors: a room imports what lies below it, and nothing above."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.children import CHECKOUT

FLOORS = (
    "sut.cli",
    "sut.studies",
    "sut.export",
    "sut.serve",
    "sut.run",
    "sut.results",
    "sut.pipeline",
    "sut.mlperf",
    "sut.models",
    "sut.qsl",
    "sut.datasets",
    "sut.tasks",
    "sut.channels",
    "sut",
    "preprocess",
    "backends",
    "kernels",
    "plugins",
)
"""From the roof down. ``sut`` is what all its rooms stand on."""
BASEMENT = ("config", "process")
"""Its parts that are folders; no other folder of ``sut`` is a room without a floor."""
STRANGERS = {("preprocess", "backends")}
"""Neighbours of whom the upper one does not know the lower one either."""


def floor(module: str) -> str:
    return next(name for name in FLOORS if f"{module}.".startswith(f"{name}."))


def modules() -> dict[str, Path]:
    found = (path.relative_to(CHECKOUT) for name in FLOORS[-5:] for path in (CHECKOUT / name).rglob("*.py"))
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): CHECKOUT / path for path in found}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """What a file imports of the product, wherever in it: those in functions count, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: relative imports hide where they lead"
            names = {alias.name for alias in node.names} - {"__version__"}
            found |= {name if (name := f"{node.module}.{each}") in known else node.module for each in names}
    return found & set(known)


GRAPH = {name: imports(path, known) for known in [modules()] for name, path in known.items()}
DOORS = {"sut", "sut.__main__"}
"""They hand out what lies above them, when they are asked for it: for strangers, not for the house."""


@pytest.mark.parametrize("module", sorted(set(GRAPH) - DOORS))
def test_a_module_imports_only_what_lies_below(module: str) -> None:
    here = FLOORS.index(floor(module))
    above = {name for name in GRAPH[module] if FLOORS.index(floor(name)) < here}
    strangers = {name for name in GRAPH[module] if (floor(module), floor(name)) in STRANGERS}

    assert above | strangers | (GRAPH[module] & DOORS) == set()


def test_every_room_has_a_floor() -> None:
    rooms = {path.parent.name for path in (CHECKOUT / "sut").glob("*/__init__.py")}

    assert {f"sut.{room}" for room in rooms - set(BASEMENT)} == {name for name in FLOORS if name.startswith("sut.")}


def test_no_imports_go_in_a_circle() -> None:
    TopologicalSorter({name: GRAPH[name] - DOORS for name in set(GRAPH) - DOORS}).prepare()


CHILDREN = {name: path for name, path in modules().items() if "    carry_out(" in path.read_text(encoding="utf-8")}


def calls(path: Path, function: str) -> list[ast.Call]:
    nodes = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return [node for node in nodes if isinstance(node.func, ast.Name) and node.func.id == function]


@pytest.mark.parametrize("module", [name for name, path in CHILDREN.items() if calls(path, "assemble")])
def test_a_child_tells_how_far_a_backend_is_that_takes_long_to_load(module: str) -> None:
    # Building an engine takes minutes, and who says nothing for five is stopped.
    assert all("progress" in {each.arg for each in call.keywords} for call in calls(CHILDREN[module], "assemble"))
