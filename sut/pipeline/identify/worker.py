"""One worker of the second model: a process of its own, ``python -m sut.pipeline.identify.worker``, or a thread.

It takes crops out of a channel of its own, as many as there are up to a batch, whichever frames they are of, and puts
a message with the label of each into the channel that all workers share. It ends when it is told so through its
channel, or with the process that started it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sut.channels.base import BrokerCounters, ChannelSettings, Counters, Receiver, Sender, Taken
from sut.channels.registry import open_receiver, open_sender
from sut.channels.wire import Message
from sut.config import RunConfig
from sut.errors import one_line
from sut.models.preparation import Prepared
from sut.pipeline.assembly import assemble
from sut.pipeline.identify.messages import END, Told
from sut.pipeline.identify.second import Second
from sut.pipeline.identify.settings import PATIENCE_S
from sut.pipeline.lane import Clock
from sut.process.clock import CLOCKS
from sut.process.messages import from_text
from sut.process.telling import Teller, carry_out
from sut.process.workers import Ready

_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is to do: the second model's config and file, and its two channels."""

    config: RunConfig
    prepared: Prepared | None
    crops: ChannelSettings
    answers: ChannelSettings
    clock: str
    """By whose name in ``CLOCKS`` it stamps."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Where a worker's channel is to be found, how long its largest batch takes, and what its model executes on."""

    crops: ChannelSettings
    batch_s: float
    attested: dict[str, Any]
    event: Literal["opened"] = "opened"


@dataclass(frozen=True, slots=True)
class Ended:
    """What went through a worker's two ends for all its life, and what the broker counted of its channel."""

    crops: Counters
    answers: Counters
    broker: BrokerCounters | None
    event: Literal["ended"] = "ended"


def serve(second: Second, crops: Receiver, answers: Sender, clock: Clock) -> None:
    """Identify crops until there will be no more. Raises ``ChannelError`` where a channel fails."""
    while True:
        taken = crops.take(second.most, _POLL_S)
        work = [each for each in taken if each.message.id != END.id]
        if work:
            _identify(second, work, crops, answers, clock)
        if len(work) < len(taken):
            crops.done([each for each in taken if each.message.id == END.id])
            return


def _identify(second: Second, taken: Sequence[Taken], crops: Receiver, answers: Sender, clock: Clock) -> None:
    begin, failed = clock(), False
    bodies: list[bytes]
    try:
        labels = second.labels_of([each.message.body for each in taken])
        bodies = [label.tobytes() for label in labels]
    except Exception as error:
        failed = True
        bodies = [f"{type(error).__name__}: {one_line(error)}".encode()] * len(taken)
    end = clock()
    replies = [
        Message(each.message.id, body, Told(begin, end, each.waited_ns, each.depth, failed).packed())
        for each, body in zip(taken, bodies, strict=True)
    ]
    crops.done(taken)
    for reply in replies:
        answers.put(reply, PATIENCE_S)


def _work(text: str, teller: Teller) -> None:
    orders = from_text(Orders, text)
    parts = assemble(orders.config, progress=teller.step, prepared=orders.prepared)
    with ExitStack() as stack:
        backend = stack.enter_context(parts.load_backend())
        parts.check_attested(attested := backend.attest())
        second = Second(parts, backend, stack)
        batch_s = second.warm_up()
        crops = stack.enter_context(open_receiver(orders.crops))
        answers = stack.enter_context(open_sender(orders.answers))
        teller.tell(Opened(crops.address, batch_s, asdict(attested)))
        teller.tell(Ready())
        serve(second, crops, answers, CLOCKS[orders.clock])
        answers.flush(PATIENCE_S)
        teller.tell(Ended(crops.counters, answers.counters, crops.broker_counters()))


if __name__ == "__main__":
    carry_out(_work)
