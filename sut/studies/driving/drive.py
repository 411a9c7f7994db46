"""Has a process load a system once and drives it through loads: the door of this room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sut.errors import RunError, error_of, writing
from sut.pipeline.assembly import Assembly
from sut.pipeline.identify.settings import cleaned_up, new_run
from sut.process.child import follow
from sut.process.messages import Failed
from sut.run.energy.metering import AtRest, Metering
from sut.run.gpu_watch import Watch
from sut.studies.driving.driven import STORY, Begun, Drive, Driven, Event, Orders, Ready
from sut.studies.driving.loads import Alone, Closed, arrivals_ns
from sut.text import Say

_SILENCE_S = 120.0
"""Its threads look after each other; this is for one that holds all of them up."""


def drive(
    parts: Assembly,
    drives: Sequence[Drive],
    directory: Path,
    *,
    cores: int | None = None,
    told: Callable[[Driven], None] = lambda driven: None,
    ready: Callable[[Ready], None] = lambda ready: None,
    say: Say = lambda text: None,
    rest: AtRest | None = None,
) -> list[Driven]:
    """What the system of ``parts`` does under each of some loads; ``told`` is told of each as soon as it is over.

    It is loaded once, with Server's queue: first in, first out, or with an eye on ``max_latency_s`` where the config
    sets that. What is auto in the config is as for Server. ``cores``: how many of the usable ones it may run on. The
    samples are written into ``directory``, as ``samples-0.npz`` and so on. A command that drives more than once gives
    one ``rest``.

    Raises ``InputError`` for a load that cannot be, what a run would where it cannot be loaded, and ``RunError`` where
    it does not answer. Samples that fail, or a clock that is set, spoil a load and no other: see ``Driven.ok``.
    """
    for each in drives:
        if not isinstance(each.load, Closed | Alone) and each.relative is None:
            arrivals_ns(each.load, each.warm_s + each.seconds)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    config = parts.config.model_copy(update={"scenario": "Server"})
    # Before there is a process that warms the machine.
    idle = (rest or AtRest()).idle(parts.gpus, config.power_log, say)
    heard = _Heard(parts.gpus, partial(Metering, idle, parts.gpus, config.power_log), told, ready)
    run = new_run()
    with heard.stack, cleaned_up(config, run):
        orders = Orders(config, parts.model, tuple(drives), directory.resolve(), cores, run)
        last = follow("sut.studies.driving.child", orders, STORY, "the load", heard=heard.hear, silence_s=_SILENCE_S)
    if isinstance(last, Failed):
        raise error_of(last.code, last.named if last.kind else last.message)
    if len(heard.driven) != len(drives):
        raise RunError("the load failed: its process ended without a word")
    return heard.driven


class _Heard:
    """Takes what the process tells, and looks at the GPUs meanwhile."""

    def __init__(
        self,
        gpus: Sequence[int],
        metering: Callable[[], Metering],
        told: Callable[[Driven], None],
        ready: Callable[[Ready], None],
    ) -> None:
        self.driven: list[Driven] = []
        self.stack = ExitStack()
        self._gpus, self._new_metering, self._told, self._ready = gpus, metering, told, ready
        self._watch: Watch | None = None
        self._metering: Metering | None = None

    def hear(self, event: Event) -> None:
        """Take one event."""
        match event:
            case Ready():
                self._ready(event)
            case Begun():
                self._watch = self.stack.enter_context(Watch(self._gpus, lambda: True))
                self._metering = self.stack.enter_context(self._new_metering())
            case Driven():
                self.stack.close()
                driven = replace(event, **self._of_gpus(), **self._energy(event))
                self.driven.append(driven)
                self._told(driven)

    def _energy(self, event: Driven) -> dict[str, Any]:
        if self._metering is None or not event.done or event.failed:
            return {}
        energy, notes = self._metering.energy((event.begin_s, event.begin_s + event.duration_s), event.done)
        return {"energy": energy, "energy_notes": tuple(notes)}

    def _of_gpus(self) -> dict[str, Any]:
        """What was seen of all GPUs together; null is what one of them does not tell."""
        gpus = (self._watch.found()[0] if self._watch is not None else None) or []
        names = {"gpu_bytes": "peak_bytes", "gpu_memory_bytes": "memory_bytes"}
        told = {field: [getattr(gpu, name) for gpu in gpus] for field, name in names.items()}
        return {field: sum(each) if each and None not in each else None for field, each in told.items()}
