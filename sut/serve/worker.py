"""The server that a run starts for itself: ``python -m sut.serve.worker``, started by ``sut.pipeline.served``.

It ends when it is told to, or with the process that started it.
"""

from __future__ import annotations

import signal

from sut.pipeline.assembly import assemble
from sut.pipeline.served import Listening, ServerOrders
from sut.process.messages import from_text
from sut.process.telling import Teller, carry_out
from sut.process.workers import Ready
from sut.serve.engine import Engine
from sut.serve.server import Address, Serving, serve
from sut.serve.service import Limits, Service

_LIMITS = Limits(inflight=1_000_000, request_bytes=2**30, answer_s=3600.0)
"""The run has limits of its own."""
_CONNECTIONS = 4096
_PATIENCE_S = 1.0


def _serve(text: str, teller: Teller) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command's own: it ends the run, and that this process
    orders = from_text(ServerOrders, text)
    parts = assemble(orders.config, progress=teller.step, prepared=orders.prepared)
    with Engine(orders.config, parts) as engine:
        engine.warm(None)

        def ready(at: Serving) -> None:
            teller.tell(Listening({"http": at.http, "grpc": at.grpc}))
            teller.tell(Ready())

        def made() -> Service:
            return Service(engine, orders.name, _LIMITS, shares_memory=False)

        serve(made, Address("127.0.0.1", 0, 0), _CONNECTIONS, _PATIENCE_S, ready, (signal.SIGTERM,))


if __name__ == "__main__":
    carry_out(_serve)
