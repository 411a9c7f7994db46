"""Which tasks there are: a table for our own, entry points for everybody else's."""

from __future__ import annotations

from collections.abc import Sequence

from backends.base import TensorSpec
from plugins.registry import plugged
from sut.plugged import load_other
from sut.tasks.base import Task
from sut.tasks.classification import Classification
from sut.tasks.detection.task import Detection
from sut.tasks.identification import Identification
from sut.tasks.maps import Depth, Segmentation

GROUP = "sut.tasks"

_OURS = (Detection, Classification, Segmentation, Depth, Identification)
TASKS: dict[str, type[Task]] = {task.name: task for task in _OURS}
"""By name; of two that could take the same outputs, the one that is harder to mistake stands first."""


def find_task(name: str) -> type[Task]:
    """The class of a task. Raises what ``load_other`` does."""
    if name in TASKS:
        return TASKS[name]
    loaded: type[Task] = load_other("task", name, TASKS, plugged(GROUP))[0]
    return loaded


def recognised(outputs: Sequence[TensorSpec]) -> str | None:
    """The name of the task that outputs look like; None for none of ours."""
    return next((name for name, task in TASKS.items() if task.recognises(outputs)), None)
