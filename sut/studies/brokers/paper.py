"""What "Beyond Inference" (arXiv 2403.12981) claims of brokers between two models, Figs. 10 and 11.

Their Kafka keeps its messages on disks. One of which nobody has said that it does is no figure for a claim of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sut.studies.brokers.crossing import Best, best_of
from sut.studies.brokers.forms import BROKERS, FUSED
from sut.studies.claims import (
    AbsentError,
    Claim,
    Figures,
    Ours,
    UntestableError,
    at_least,
    compared,
    in_figures,
    lost,
    share,
    values,
)

KAFKA_SHARE, REDIS_SHARE = 0.71, 0.06
GAIN, GAIN_AT = 2.25, 25
FUSED_BELOW = 9
_COMMAND = "study brokers --kafka kafka://HOST:PORT --durable"
_OWN = "a Kafka of yours with disks tells: ./run_local.sh study brokers --kafka kafka://HOST:PORT --durable"
NOT_DURABLE = f"nobody has said that this Kafka keeps messages on disks, as theirs does; {_OWN}"


def rate_at(fan_out: int) -> str:
    """The name of the figure: frames per second at saturation."""
    return f"frames/s at {fan_out}"


def share_at(fan_out: int) -> str:
    """The name of the figure: the broker's share of the latency at zero load."""
    return f"broker's share at {fan_out}"


def claims_of(fan_outs: Sequence[int]) -> list[Claim]:
    """The claims, over figures of these fan-outs.

    Shares are held at the smallest, where a crop has no other of its frame to wait for: what waits is the broker's.
    """
    least = fan_outs[0]
    fused = f"Fused has more throughput than any broker below {FUSED_BELOW} faces a frame"
    gain = f"Redis has {GAIN} x the throughput of Kafka at {GAIN_AT} faces a frame"
    return [
        _claim("kafka-share", "Kafka takes 71 % of the latency", "71 %", ("kafka",), partial(_kafka_share, least)),
        _claim("redis-share", "Redis takes 6 % of the latency", "6 %", ("redis",), partial(_redis_share, least)),
        _claim("redis-kafka", gain, f"{GAIN} x", ("kafka", "redis"), _gain),
        _claim("fused", fused, f"below {FUSED_BELOW}", ("redis",), partial(_fused_below, fan_outs)),
    ]


def _claim(key: str, says: str, theirs: str, parts: tuple[str, ...], judge: Callable[[Figures], Ours]) -> Claim:
    return Claim(
        key,
        "11",
        says,
        theirs,
        parts,
        judge,
        _COMMAND if "kafka" in parts else "study brokers --redis redis://HOST:PORT",
    )


def _kafka_share(fan_out: int, figures: Figures) -> Ours:
    """At least so much."""
    found = share(values(figures, "kafka", share_at(fan_out)))
    return at_least(KAFKA_SHARE, found, " %").told(f"{{}} at {fan_out} a frame")


def _redis_share(fan_out: int, figures: Figures) -> Ours:
    """At most so much: at least all but that is left."""
    left = share([None if each is None else 1 - each for each in values(figures, "redis", share_at(fan_out))])
    ours = at_least(1 - REDIS_SHARE, left)
    return Ours(ours.holds, f"{in_figures(lost(left), ' %')} at {fan_out} a frame", lost(left))


def _gain(figures: Figures) -> Ours:
    kafka, redis = (values(figures, name, rate_at(GAIN_AT)) for name in ("kafka", "redis"))
    return at_least(GAIN, compared(kafka, redis))


def _fused_below(fan_outs: Sequence[int], figures: Figures) -> Ours:
    """Whether the best broker is told to be behind at all of them."""
    below = [each for each in fan_outs if each < FUSED_BELOW]
    if not below:
        raise UntestableError(f"--fan-outs has none below {FUSED_BELOW}")
    rates = {
        name: {each: found for each in below if (found := figures.get(name, {}).get(rate_at(each)))}
        for name in (FUSED, *BROKERS)
    }
    best = best_of(rates, FUSED, [name for name in BROKERS if rates[name]])
    if len(best) < len(below):
        raise AbsentError(f"no round has measured fused and a broker at every fan-out below {FUSED_BELOW}")
    verdicts = {each.found.verdict for each in best.values()}
    holds = False if "better" in verdicts else None if "open" in verdicts else True
    closest = max(best.items(), key=_ratio)
    words = f"the best broker's throughput is at most {in_figures(closest[1].found)} of fused's"
    return Ours(holds, f"{words} ({closest[1].form}, {closest[0]} a frame)", closest[1].found)


def _ratio(item: tuple[int, Best]) -> float:
    return item[1].found.ratio or 0.0
