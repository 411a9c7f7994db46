"""Samples of a load, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from sut.results.samples import Samples
from sut.results.stages import whole_stages


def samples(index: Any = None, **stages_ns: Any) -> Samples:
    """Samples whose latency is the sum of these stages, but for details of others; of picture 0 unless told."""
    stages = {name: np.asarray(values, np.int64) for name, values in stages_ns.items()}
    latency = sum(whole_stages(stages).values(), np.zeros_like(next(iter(stages.values()))))
    numbers = np.zeros(len(latency), np.int32) if index is None else np.asarray(index, np.int32)
    return Samples(numbers, np.arange(len(latency)), latency, stages)
