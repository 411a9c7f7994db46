"""What a hand-over costs: each channel between two processes, beside its library's own push and blocking pop.

python benchmarks/channels.py [--redis URL] [--kafka URL] [--pairs 7] [--messages 200] [--write-docs]

At zero load: a message is put 2 ms after the one before it. The p50 from just before it is put until it was taken,
and CPU time of both ends together, without the broker's. ``memory`` is between threads, beside ``queue.Queue``. A ring
has no other side: it is held against 60 us. Brokers are left out where no URL is given. Exit code: 0 measured, whatever
came out; 1 wrong usage; 3 a side could not be run.
"""

from __future__ import annotations

import json
import os
import queue
import re
import statistics
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish, spread, table
from benchmarks.overhead_sides import MeasurementError, environment, measured
from sut.channels.base import ChannelSettings, elsewhere
from sut.channels.registry import open_receiver, open_sender
from sut.channels.wire import Message

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "channels.md"
TENSOR = (1, 3, 224, 224)
CROPS = (5_000, 40_000, 150_000)
"""Bytes of a crop: a small face, a large one, and the largest as pixels."""
GAP_S = 0.002
MOST = 8
"""What is asked for at once, as a lane asks for a batch."""
WARM = 20
"""Messages before those that count."""
LIMIT_S = 60.0
STAMP = struct.Struct("q")

Send = Callable[[int], None]
Take = Callable[[], list[int]]
"""Puts a message of a number; waits for some and gives how long each took, in ns."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair: ``ours`` by its settings, or a library's own at a ``url``; ``size`` 0 is the tensor."""

    library: str
    settings: dict[str, Any]
    size: int
    count: int


@contextmanager
def sending(side: Side) -> Iterator[Send]:
    """How a message of that side is put."""
    body = np.zeros(side.size, np.uint8)
    settings = ChannelSettings(**side.settings)
    name = f"bare-{settings.run}"
    if side.library == "ours":
        with open_sender(settings) as sender:

            def put(number: int) -> None:
                given = body if side.size else sender.reserve(number, TENSOR, np.float32, LIMIT_S).body
                sender.put(Message(number, given, STAMP.pack(time.monotonic_ns())), LIMIT_S)

            yield put
    elif side.library == "redis":
        import redis

        client = redis.Redis.from_url(settings.url)
        yield lambda number: client.rpush(name, STAMP.pack(time.monotonic_ns()) + body.tobytes())
        client.close()
    else:
        from sut.channels.kafka_link import Cluster

        producer = Cluster(settings).producer()

        def produce(number: int) -> None:
            producer.produce(name, STAMP.pack(time.monotonic_ns()) + body.tobytes())
            producer.poll(0)

        yield produce
        producer.flush(LIMIT_S)


@contextmanager
def taking(side: Side) -> Iterator[tuple[Take, dict[str, Any]]]:
    """How a message of that side is taken, and the settings that its sender opens its end with."""
    settings = ChannelSettings(**side.settings)
    name = f"bare-{settings.run}"
    if side.library == "ours":
        with open_receiver(settings) as receiver:

            def take() -> list[int]:
                taken = receiver.take(MOST, LIMIT_S)
                waited_ns = [_since(each.message.spans) for each in taken]
                receiver.done(taken)
                return waited_ns

            yield take, asdict(receiver.address)
    elif side.library == "redis":
        import redis

        client = redis.Redis.from_url(settings.url)
        yield lambda: [_since(client.blpop([name], timeout=int(LIMIT_S))[1])], side.settings
        client.delete(name)
    else:
        yield from _taking_bare_kafka(settings, name)


def _taking_bare_kafka(settings: ChannelSettings, name: str) -> Iterator[tuple[Take, dict[str, Any]]]:
    from confluent_kafka import TopicPartition

    from sut.channels.kafka_link import Cluster

    cluster = Cluster(settings)
    cluster.make(name, 1)
    consumer = cluster.consumer({"fetch.wait.max.ms": 10})
    consumer.assign([TopicPartition(name, 0, 0)])
    yield lambda: [_since(consumer.poll(LIMIT_S).value())], asdict(settings)
    consumer.close()
    cluster.delete([name])


def _since(value: bytes) -> int:
    return int(time.monotonic_ns() - STAMP.unpack_from(value)[0])


def put_all(side: Side) -> float:
    """The sending process: CPU seconds of what counts."""
    with sending(side) as send:
        for number in range(WARM + side.count):
            if number == WARM:
                begin = time.process_time()
            time.sleep(GAP_S)
            send(number)
        return time.process_time() - begin


def run(side: Side) -> tuple[float, float]:
    """p50 of a hand-over and CPU time of a message, both in us."""
    with taking(side) as (take, address):
        orders = json.dumps(asdict(Side(side.library, address, side.size, side.count)))
        command = [sys.executable, "-P", __file__, "--send", orders]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as child:
            waited: list[int] = []
            begin = 0.0
            while len(waited) < WARM + side.count:
                if not begin and len(waited) >= WARM:
                    begin = time.process_time()
                waited += take()
            cpu = time.process_time() - begin
            said, _ = child.communicate(timeout=LIMIT_S)
    if child.returncode != 0:
        raise MeasurementError(f"{side.library}: the sender ended with {child.returncode}")
    return statistics.median(waited[WARM:]) / 1e3, 1e6 * (cpu + float(said)) / side.count


def run_threads(count: int, is_ours: bool) -> tuple[float, float]:
    """The same between threads of this process: ``memory``, or the standard library's queue."""
    settings = ChannelSettings("memory", uuid.uuid4().hex)
    tensor = np.zeros(TENSOR, np.float32)
    plain: queue.Queue[tuple[Any, bytes]] = queue.Queue(settings.capacity)
    waited = []
    with open_receiver(settings) as receiver, open_sender(receiver.address) as sender:

        def send() -> None:
            for number in range(count):
                time.sleep(GAP_S)
                stamp = STAMP.pack(time.monotonic_ns())
                sender.put(Message(number, tensor, stamp), LIMIT_S) if is_ours else plain.put((tensor, stamp))

        begin = time.process_time()
        thread = threading.Thread(target=send)
        thread.start()
        for _ in range(count):
            if is_ours:
                [taken] = receiver.take(1, LIMIT_S)
                waited.append(_since(taken.message.spans))
                receiver.done([taken])
            else:
                waited.append(_since(plain.get(timeout=LIMIT_S)[1]))
        thread.join()
    return statistics.median(waited) / 1e3, 1e6 * (time.process_time() - begin) / count


@dataclass(frozen=True, slots=True)
class Pairs:
    """A hand-over, of which something is asked, and the CPU time that it took."""

    wait: Figure
    cpu: Figure


def pairs(title: str, asked: Target, count: int, ours: Callable[[], tuple[float, float]], bare: Any = None) -> Pairs:
    """So many pairs, the sides in turns first."""
    waits = Figure(title, "us", asked)
    cpu = Figure(title, "us", Target("ratio" if bare else "value", "at most", 1.0))
    for pair in range(count):
        order = [(ours, "ours")] + ([(bare, "bare")] if bare else [])
        for side, name in order if pair % 2 else order[::-1]:
            wait, used = side()
            getattr(waits, name).append(wait)
            getattr(cpu, name).append(used)
    return Pairs(waits, cpu)


def through(channel: str, url: str, given: Any) -> Iterator[Pairs]:
    """Crops through a broker, beside its library's own way."""
    for size in CROPS:

        def side(library: str, size: int = size) -> Callable[[], tuple[float, float]]:
            settings = elsewhere(ChannelSettings(channel, uuid.uuid4().hex), url)
            return lambda: run(Side(library, asdict(settings), size, given.messages))

        title = f"{channel}, a crop of {size / 1000:g} kB"
        yield pairs(title, Target("ratio", "at most", 1.3), given.pairs, side("ours"), side(channel))


def _shown(command: str) -> str:
    """Without passwords and ports, which are nobody's business."""
    return re.sub(r"((?:redis|kafka)) \w+://\S+", r"\1 URL", command)


def main() -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--redis", help="URL of a Redis")
    parser.add_argument("--kafka", help="URL of a broker of Kafka's protocol")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of each (7)")
    parser.add_argument("--messages", type=int, default=200, help="messages of each side of a pair (200)")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/channels.md")
    parser.add_argument("--send", help="what the sending process is called with")
    given = parser.parse_args()
    if given.send:
        print(put_all(Side(**json.loads(given.send))))
        return 0
    before = os.getloadavg()[0]
    ring = asdict(ChannelSettings("shared", uuid.uuid4().hex))
    try:
        found = [
            pairs(
                "memory, a tensor of 602 kB between threads",
                Target("ratio", "at most", 3.0),
                given.pairs,
                lambda: run_threads(given.messages, True),
                lambda: run_threads(given.messages, False),
            ),
            pairs(
                "shared, a tensor of 602 kB",
                Target("value", "at most", 60.0),
                given.pairs,
                lambda: run(Side("ours", ring, 0, given.messages)),
            ),
        ]
        for channel, url in (("redis", given.redis), ("kafka", given.kafka)):
            found += through(channel, url, given) if url else ()
    except MeasurementError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    columns = ("CPU time of a message", "ours", "bare", "comes to")
    cpu = [[*each.cpu.row()[:3], spread(each.cpu.values) if each.cpu.bare else "-"] for each in found]
    waits = figures_table([each.wait for each in found])
    body = [measured(_shown(command_line(sys.argv)), before), "", *waits, "", *table(columns, cpu)]
    publish(body, "channels" if given.write_docs else None, "What it costs", DOCUMENT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
