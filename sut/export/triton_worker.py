"""The process behind a Triton Python model: ``python -m sut.export.triton_worker DESCRIPTOR ORDERS``.

The server's own Python is another, with a NumPy of its own; here the pipeline runs as ``sut serve`` has it, one lane of
it. It is started by ``sut/export/triton_model.py``, a copy of which is the model, and asked through a socket in frames
of bytes: the first of a batch is JSON, a list of what each request has, ``[dtype, shape, bytes of each file]``; the
others are the arrays. What comes back is alike: for each request a ``Refusal``, or ``[name, dtype, shape]`` of each of
its outputs.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sut.config import RunConfig
from sut.errors import ExitCode, broken_import, one_line
from sut.models.preparation import Prepared, check_unchanged
from sut.pipeline.assembly import assemble
from sut.process.messages import from_text
from sut.process.telling import die_with_parent
from sut.serve.engine import Engine
from sut.serve.samples import Request, Sample, bodies

READY = b"ready"
"""The one frame that says so; any other says what went wrong."""

Rows = NDArray[Any]
Outputs = Mapping[str, Rows]


@dataclass(frozen=True, slots=True)
class Orders:
    """What is written beside the model: the command that starts the process, where, with what on Python's path; and
    what the process is to run.
    """

    command: tuple[str, ...]
    folder: Path
    checkout: Path
    config: RunConfig
    prepared: Prepared | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """In a line why a request has no outputs, and whether it is itself at fault."""

    reason: str
    of_request: bool


def answers(engine: Engine, requests: Sequence[Rows]) -> list[Outputs | Refusal]:
    """The model's outputs for each request, or why it has none: what is wrong with one is no other's fault.

    All are one batch, as far as the engine's largest allows.
    """
    asked = [[Sample(body) for body in bodies(engine.wire, rows)] if rows.size else [] for rows in requests]
    answered = threading.Event()
    if together := [*itertools.chain(*asked)]:
        engine.ask_for(Request(together, lambda request: answered.set()))
        answered.wait()  # the model has a limit, and ends this process
    return [_answer(samples) for samples in asked]


def _answer(samples: Sequence[Sample]) -> Outputs | Refusal:
    if not samples:
        return Refusal("got an empty tensor, expected one of at least a row, each with something in it", True)
    for row, sample in enumerate(samples):
        if sample.error is not None:
            where = f" (row {row})" if len(samples) > 1 else ""
            return Refusal(f"{sample.error}{where}", sample.is_bad)
    return {name: np.stack([each.outputs[name] for each in samples]) for name in samples[0].outputs}


def _received(pipe: Connection) -> list[Rows]:
    """The next batch. Raises ``EOFError`` where there will be none."""
    requests = list[Rows]()
    for dtype, shape, sizes in json.loads(pipe.recv_bytes()):
        data = pipe.recv_bytes()
        if dtype == "object":
            ends = list(itertools.accumulate(sizes, initial=0))
            rows = np.empty(len(sizes), object)
            rows[:] = [data[begin:end] for begin, end in itertools.pairwise(ends)]
        else:
            rows = np.frombuffer(data, dtype)
        requests.append(rows.reshape(shape))
    return requests


def _send(pipe: Connection, found: Sequence[Outputs | Refusal]) -> None:
    told = [
        asdict(each)
        if isinstance(each, Refusal)
        else [(name, array.dtype.name, array.shape) for name, array in each.items()]
        for each in found
    ]
    pipe.send_bytes(json.dumps(told).encode())
    for each in found:
        if not isinstance(each, Refusal):
            for array in each.values():
                pipe.send_bytes(array.tobytes())


def _serve(pipe: Connection, orders: Orders) -> None:
    """Load the model, say so, and answer until nobody asks any more."""
    parts = assemble(orders.config, prepared=orders.prepared)
    with Engine(orders.config, parts) as engine:
        check_unchanged(orders.prepared, "since it was exported", "export it again")
        engine.warm(None)
        pipe.send_bytes(READY)
        while True:
            try:
                requests = _received(pipe)
            except EOFError:
                return
            _send(pipe, answers(engine, requests))


def main() -> None:
    """Serve; an error before anything was asked is told."""
    die_with_parent()
    pipe = Connection(int(sys.argv[1]))
    try:
        _serve(pipe, from_text(Orders, Path(sys.argv[2]).read_text(encoding="utf-8")))
    except Exception as error:
        pipe.send_bytes((broken_import(error) or one_line(error)).encode())
        os._exit(ExitCode.FAILED)
    # Not a normal exit: runtimes with threads of their own have been seen to crash in their destructors.
    os._exit(ExitCode.OK)


if __name__ == "__main__":
    main()
