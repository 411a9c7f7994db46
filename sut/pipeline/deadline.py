"""Which waiting queries to answer next when each has a latency bound: the choice alone, as pure functions of times.

First in, first out with the largest batch is what loses a latency bound: a burst makes a large batch, whose oldest
query is late, behind it the next burst grows, and everybody after it is late too. Here

- a query is *hopeless* once it cannot be answered in time even alone; it lets all others go before it;
- the batch is as large as the oldest query that is not hopeless can bear;
- hopeless queries are answered when nobody else waits, no more at a time than lets one who comes meanwhile still make
  it; and once one has waited very long, one of them goes along with every eighth batch, so that none waits for ever.

Only what has arrived is looked at, never what may come: LoadGen's schedule is not to be foreseen. The simulation of
``sut/studies/simulation.py`` makes its choices with this very class.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np

MARGIN = 0.02
"""Share of the bound that is kept back, for the way from LoadGen's schedule to the batch and from its end to LoadGen.
No more, for batches that take longer than they should: in simulation, service times believed a fifth shorter than they
are still held no less than first in, first out; on one lane, times believed half as long again held a tenth less."""
PATIENCE = 20
"""Latency bounds after which a hopeless query is taken along by a batch of others."""
TURN = 8
"""Of so many batches in a row, one takes a hopeless query along. In simulation of a load that grows beyond what can be
borne, this leaves nine in ten of the answers in time that would be so if the hopeless starved; each batch: four in ten.
"""
TINY = 0.02
"""Share of the bound below which a full batch is not worth a choice: first in, first out is as good, and cheaper."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A latency bound and what batches take, both in ns.

    ``service_ns[n - 1]`` is the time of a batch of ``n``, never falling with ``n``. ``at_ease``: hopeless queries that
    are answered together when nobody else waits.
    """

    bound_ns: int
    service_ns: tuple[int, ...]
    at_ease: int

    @classmethod
    def of(cls, bound_ns: int, service_ns: Sequence[int]) -> Self:
        """The choice for this bound, all of it, and these service times."""
        ascending = tuple(accumulate(service_ns, max))
        at_ease = max(1, bisect_right(ascending, bound_ns - ascending[0]))
        return cls(bound_ns, ascending, at_ease)

    @classmethod
    def worthwhile(cls, bound_ns: int, service_ns: Sequence[int]) -> Self | None:
        """The choice for LoadGen's bound, less the margin; None where it can win nothing over first in, first out.

        That is where a full batch takes next to no time, and where not even a single query can be in time.
        """
        kept_ns = int((1 - MARGIN) * bound_ns)
        if service_ns[0] > kept_ns or max(service_ns) < TINY * bound_ns:
            return None
        return cls.of(kept_ns, service_ns)

    def hopeless_before(self, now_ns: int) -> int:
        """What arrived before this moment cannot be answered in time, not even alone."""
        return now_ns - self.bound_ns + self.service_ns[0]

    def in_time(self, arrived_ns: int, now_ns: int) -> int:
        """The largest batch in which a query that arrived then is answered in time; 0 if it is hopeless."""
        return bisect_right(self.service_ns, self.bound_ns - now_ns + arrived_ns)

    def takes_along(self, arrived_ns: int, now_ns: int, passed: int) -> bool:
        """Whether the oldest hopeless query, which arrived then, goes along with a batch of others.

        ``passed``: batches since the last time that a hopeless one was answered.
        """
        return passed + 1 >= TURN and now_ns - arrived_ns > PATIENCE * self.bound_ns


def service_times(batch_ns: Mapping[int, int], padded: Sequence[int]) -> list[int]:
    """Time in ns of a batch of 1, 2, 3, ... samples, which run at the sizes ``padded``.

    Sizes that were not measured lie on a straight line between those that were, ``batch_ns`` by size.

    >>> service_times({1: 10, 4: 40}, [1, 2, 4, 4])
    [10, 20, 40, 40]
    """
    known = sorted(batch_ns)
    return [round(took) for took in np.interp(padded, known, [batch_ns[size] for size in known])]
