"""Figures as the parts of a GPU report find them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def parity_rows(name: str, same: int = 98) -> list[dict[str, Any]]:
    return [
        {
            "preprocess": name,
            "pictures": pictures,
            "parity": {"pictures": 99, "max_levels": 2},
            "labels_same": labels and same,
            "labels": labels,
        }
        for pictures, labels in (("noise", None), ("crops", 99))
    ]


def same_rows(name: str, levels: int = 1) -> list[dict[str, Any]]:
    return [{"preprocess": name, "recipe": "resnet50", "pictures": 33, "max_levels": levels}]


def run_found(
    settings: Mapping[str, Any] = MappingProxyType({}), rate: float = 9_000.0, bare: float | None = 9_100.0
) -> dict[str, Any]:
    """What a run's part finds; ``bare`` is the rate of the loop beside it, whose p50 is 10 us less than the run's."""
    asked = {"backend": "pytorch", "model": "resnet50", "precision": "fp16", "boundary": "device"}
    told = asked | {"preprocess": "opencv", "scenario": "Offline", "option": ""} | dict(settings)
    return {
        "cell": told,
        "valid": True,
        "samples_per_second": rate,
        "latency_ns": {"p50": 300_000, "p90": 320_000, "p99": 400_000},
        "bare": None if bare is None else {"samples_per_second": bare, "p50_ns": 290_000},
    }
