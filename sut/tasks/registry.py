"""Which tasks there are: a table for our own, entry points for everybody else's."""

from __future__ import annotations

from importlib.metadata import entry_points

from sut.errors import InputError, suggest
from sut.tasks.base import Task
from sut.tasks.classification import Classification

GROUP = "sut.tasks"

TASKS: dict[str, type[Task]] = {"classification": Classification}


def find_task(name: str) -> type[Task]:
    """The class of a task. Raises ``InputError`` for an unknown name."""
    if name in TASKS:
        return TASKS[name]
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise InputError(f"unknown task '{name}'; {suggest(name, {*TASKS, *points})}")
    loaded: type[Task] = points[name].load()
    return loaded
