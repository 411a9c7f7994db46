"""One scenario run, in a process of its own: ``python -m sut.run.worker``, started by the supervisor.

It tells what happens over a pipe, and writes ledger and counters into memory that the supervisor maps too. LoadGen can
abort, hang and ignore Ctrl-C; the supervisor cannot, so everything that must survive happens there.
"""

from __future__ import annotations

import os
import signal
import threading

from sut.process.signals import ENDING
from sut.process.telling import Teller, carry_out
from sut.results.quiet import look
from sut.run.pulse import Phase, Pulse, in_the_run


def _work(orders: str, teller: Teller) -> None:
    """Hear no signals, keep nobody waiting who cannot be answered, and run the course."""
    for which in ENDING:
        # The supervisor hears them too, and ends this process. Not ignored: what is started in here would inherit that.
        signal.signal(which, lambda number, frame: None)
    # A lane that dies answers nobody any more, and LoadGen would wait for it.
    threading.excepthook = lambda died: teller.give_up(in_the_run(died.exc_value or died.exc_type()))
    pulse = Pulse(teller)
    threading.Thread(target=pulse.watch, daemon=True).start()
    began = look(os.getppid())
    teller.tell(Phase("import"))
    # Takes long, so the supervisor is told before; and what fails in there is told as well.
    from sut.run.course import Course

    Course(orders, teller, pulse, began).go()


if __name__ == "__main__":
    carry_out(_work)
