"""What a result says of the second model of a pipeline, read off its parts after the run."""

from __future__ import annotations

import numpy as np

from sut.channels.base import BrokerCounters, Counters
from sut.pipeline.identify.build import Identification
from sut.pipeline.identify.messages import Carried
from sut.pipeline.identify.pool import Pool
from sut.pipeline.identify.settings import ANSWERS, CROPS
from sut.results.identified import Broker, Carriage, Identified


def identified_by(second: Identification) -> Identified:
    """``Result.identified`` of a system that was closed."""
    parts, pool, model = second.parts, second.pool, second.parts.model
    return Identified(
        model=parts.spec.name,
        model_sha256=model.sha256 if model else None,
        weights=model.weights if model else None,
        backend=parts.config.backend,
        backend_version=parts.backend.version(),
        attested=second.attested,
        identified=second.identified,
        channel=pool.answers.settings.channel if pool else "none",
        durability=pool.answers.durability if pool else "none",
        workers=len(pool.crops) if pool else None,
        crops=_crops(pool) if pool else None,
        answers=_answers(pool) if pool else None,
        broker=_broker(pool) if pool else None,
    )


def _crops(pool: Pool) -> Carriage:
    """Workers count at their end, each one message more than crops: the one that tells it of the end."""
    counted = pool.hands.ended
    ends = [each.crops for each in counted]
    brokers = [each.broker.messages if each.broker else None for each in counted]
    is_whole = len(counted) == len(pool.crops)
    more = -len(ends) if is_whole else None
    return _carriage(pool.carried[CROPS], ends, more, brokers if is_whole else [])


def _answers(pool: Pool) -> Carriage:
    after = pool.broker_after
    return _carriage(pool.carried[ANSWERS], [pool.answers.counters], 0, [after.messages if after else None])


def _carriage(carried: Carried, ends: list[Counters], more: int | None, brokers: list[int | None]) -> Carriage:
    """``more`` is what to add to what ends and brokers have counted; None where they have not told it."""
    waited, depth = np.array(carried.each_waited_ns), np.array(carried.each_depth)
    some = len(waited) > 0
    of_brokers = [each for each in brokers if each is not None]
    return Carriage(
        messages=carried.messages,
        bytes=carried.bytes,
        depth_mean=float(depth.mean()) if some else None,
        depth_most=int(depth.max()) if some else None,
        waited_p50_ns=int(np.percentile(waited, 50)) if some else None,
        waited_p99_ns=int(np.percentile(waited, 99)) if some else None,
        waited_most_ns=int(waited.max()) if some else None,
        duplicates=sum(each.duplicates for each in ends),
        all_messages=None if more is None else sum(each.messages for each in ends) + more,
        broker_messages=sum(of_brokers) + (more or 0) if of_brokers and len(of_brokers) == len(brokers) else None,
    )


def _broker(pool: Pool) -> Broker | None:
    before, after = pool.broker_before, pool.broker_after
    if before is None or after is None:
        return None
    ends = [pool.answers.counters, *(sender.counters for sender in pool.senders)]
    ends += [end for each in pool.hands.ended for end in (each.crops, each.answers)]
    return Broker(
        _since(before, after, "bytes_in"),
        _since(before, after, "bytes_out"),
        sum(each.wire_out for each in ends),
        sum(each.wire_in for each in ends),
    )


def _since(before: BrokerCounters, after: BrokerCounters, name: str) -> int | None:
    then, now = getattr(before, name), getattr(after, name)
    return None if then is None or now is None else now - then
