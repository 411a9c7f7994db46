"""Studies of brokers whose rounds are planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sut.studies.brokers.forms import FUSED, Form
from sut.studies.brokers.rounds import BROKER, GROUPS, Round
from sut.studies.brokers.study import Study
from sut.studies.kept import Kept

NOISE = (1.0, 1.01, 0.99, 1.005, 0.995)
"""Of five rounds."""
URLS = {FUSED: "none", "shared": "shared", "redis": "redis://127.0.0.1:6379", "kafka": "kafka://127.0.0.1:9092"}


def planted(form: str, fan_out: int, number: int, rate: float, share: float = 0.0) -> Round:
    """A round with that throughput, and of 10 ms at zero load that share between the models."""
    parts = dict.fromkeys(GROUPS, 0.0) | {BROKER: 1e7 * share, "second model": 1e7 * (1 - share)}
    return Round(form, fan_out, number, rate, 0.01, 600e3 * fan_out, parts, (100, 50), 5.0)


def study(
    tmp_path: Path,
    rates: Mapping[str, Mapping[int, float]],
    shares: Mapping[str, float] = {},
    durable: bool = True,
    absent: Mapping[str, str] = {},
    noise: Sequence[float] = NOISE,
) -> Study:
    """Five rounds of such rates by form and fan-out, but for what ``noise`` makes of those that are not fused."""
    fan_outs = sorted({each for found in rates.values() for each in found})
    tmp_path.mkdir(exist_ok=True)
    kept: Kept[Round] = Kept(tmp_path / "rounds.jsonl", {})
    for form, found in rates.items():
        for fan_out, rate in found.items():
            for number, factor in enumerate(noise, start=1):
                there = rate * (1 if form == FUSED else factor)
                kept.add(planted(form, fan_out, number, there, shares.get(form, 0.0)))
    forms = [Form(form, URLS[form], durable and form == "kafka") for form in rates]
    return Study(parts(), forms, fan_outs, len(noise), kept, dict(absent))


def parts() -> Any:
    """What a report asks of the parts of a system."""
    config = SimpleNamespace(backend="simulated", lanes=4, identify_workers=2, identify_batch=8)
    second = SimpleNamespace(spec=SimpleNamespace(name="lite0"), model=None)
    return SimpleNamespace(config=config, second=second, spec=SimpleNamespace(name="planted"))
