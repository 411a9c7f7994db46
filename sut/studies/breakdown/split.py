"""The samples of one load taken apart: conditional percentiles, the tax, what no stage explains, who makes the tail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sut.mlperf.logs import Int64Array
from sut.results.samples import Samples
from sut.results.schema import conditional
from sut.results.stages import inference

WAITING = ("issue_delay", "queue", "channel")
"""The stages in which nobody works on a sample."""
RESIDUAL = "residual"
MOST_RESIDUAL = {"p50": 0.02, "p99": 0.05}
"""Of the latency, what the stages may leave unexplained: around the median, and in the slowest hundredth."""
_FEWEST_FOR_TAIL = 100
"""Samples without which the slowest hundredth is not one sample."""


def cuts(samples: Samples) -> dict[str, dict[str, Any] | None]:
    """How the latency splits up: ``mean`` over all samples, ``p50`` over those between the 45th and the 55th
    percentile, ``p99`` over those from the 99th up, None of fewer than a hundred samples, as all are of none.

    Of each ``samples``, the mean ``latency_ns`` and ``stages_ns`` of these samples, which add up, ``tax`` (what of the
    latency is not inference, as a share) and ``residual_share`` (how much of it no stage explains, over or under).
    """
    count = len(samples.latency_ns)
    if not count:
        return dict.fromkeys(("mean", "p50", "p99"))
    middle, tail = conditional(samples.latency_ns)
    return {
        "mean": _cut(samples, np.arange(count)),
        "p50": _cut(samples, middle),
        "p99": _cut(samples, tail) if count >= _FEWEST_FOR_TAIL else None,
    }


def _cut(samples: Samples, which: Int64Array) -> dict[str, Any]:
    latency = float(samples.latency_ns[which].mean())
    stages = {name: float(values[which].mean()) for name, values in samples.stages_ns.items()}
    unexplained = samples.stages_ns.get(RESIDUAL)
    return {
        "samples": len(which),
        "latency_ns": latency,
        "stages_ns": stages,
        "tax": None if (inferred := inference(stages)) is None else 1 - inferred / latency,
        "residual_share": None if unexplained is None else float(np.abs(unexplained[which]).mean()) / latency,
    }


def shares(samples: Samples) -> dict[str, dict[str, float | None] | None]:
    """At each place of ``cuts``: ``tax``, and ``waiting``, in which nobody worked on the samples."""
    return {
        at: cut
        and {
            "tax": cut["tax"],
            "waiting": sum(cut["stages_ns"].get(name, 0.0) for name in WAITING) / cut["latency_ns"],
        }
        for at, cut in cuts(samples).items()
    }


def closes(found: Mapping[str, Mapping[str, Any] | None]) -> bool | None:
    """Whether the stages of ``cuts`` explain the latency as far as ``MOST_RESIDUAL`` asks; None: that is unknown."""
    shares = {name: cut["residual_share"] for name in MOST_RESIDUAL if (cut := found[name]) is not None}
    if not shares or any(share is None for share in shares.values()):
        return None
    return all(share <= MOST_RESIDUAL[name] for name, share in shares.items())


def percentiles(latency_ns: Int64Array) -> dict[str, float | None]:
    """``mean``, ``p50`` and ``p99`` of a latency in ns; no p99 of fewer than a hundred samples, nothing of none."""
    if not len(latency_ns):
        return dict.fromkeys(("mean", "p50", "p99"))
    p50, p99 = np.percentile(latency_ns, (50, 99))
    return {
        "mean": float(latency_ns.mean()),
        "p50": float(p50),
        "p99": float(p99) if len(latency_ns) >= _FEWEST_FOR_TAIL else None,
    }


def tail_by_size(samples: Samples, size_of: Sequence[str], alone: Samples | None = None) -> list[dict[str, Any]] | None:
    """Who makes the slowest hundredth: a row for each size of picture; None of fewer than a hundred samples.

    ``size_of`` is the size of each picture of the data set, by ``index``. ``share_of_all`` and ``share_of_tail`` say
    how many of all samples, and of the slowest, are of that size. Of these slowest ones, the means: ``waiting_ns`` is
    spent behind others, before anybody works on them, ``working_ns`` in the stages of their batch. ``alone_ns`` is the
    mean latency of that size in ``alone``, where nobody waits: what of ``working_ns`` is over it are batch mates, and
    other work on the same cores.
    """
    count = len(samples.latency_ns)
    if count < _FEWEST_FOR_TAIL:
        return None
    names = np.asarray(size_of)
    sizes, tail = names[samples.index], conditional(samples.latency_ns)[1]
    waiting = sum((samples.stages_ns[name] for name in WAITING if name in samples.stages_ns), np.zeros(count, np.int64))
    rows = []
    for name in dict.fromkeys(size_of):
        mine = tail[sizes[tail] == name]
        before = None if alone is None else alone.latency_ns[names[alone.index] == name]
        rows.append(
            {
                "size": name,
                "tail_samples": len(mine),
                "share_of_all": float((sizes == name).mean()),
                "share_of_tail": len(mine) / len(tail),
                "latency_ns": _mean(samples.latency_ns[mine]),
                "waiting_ns": _mean(waiting[mine]),
                "working_ns": _mean(samples.latency_ns[mine] - waiting[mine]),
                "alone_ns": None if before is None else _mean(before),
            }
        )
    return rows


def _mean(values: Int64Array) -> float | None:
    return float(values.mean()) if len(values) else None
