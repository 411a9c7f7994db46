"""Answers at once: batching, lane, ledger and LoadGen with no model behind them, which is the harness's ceiling.

It reads no input, so the library holds no tensors for it, and its answer is always class 1: class 0 is no label where
a model has a "background" there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from backends.base import Attestation, Backend, ModelFile, Runner, Slot, TensorSpec
from plugins.errors import DeviceNotFound


class Null(Backend):
    """Takes any number of rows of nothing, and answers class 1 for each."""

    name = "null"
    needs_model = False
    inputs = ()
    outputs = (TensorSpec("label", "int64", (None,), "N"),)

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Load nothing; only ``cpu`` is a device."""
        cls.read_options(options)
        if device != "cpu":
            raise DeviceNotFound(f"the null backend runs on cpu only, got device '{device}'")
        return cls()

    @classmethod
    def version(cls) -> str:
        """There is no runtime to have a version."""
        return "none"

    def runner(self, place: str = "host") -> NullRunner:
        """A new runner."""
        return NullRunner()

    def attest(self) -> Attestation:
        """Nothing is executed."""
        return Attestation(device="cpu", device_name="none", provider="none", precision="none")


class NullRunner(Runner):
    """Answers with a view of ones."""

    def __init__(self) -> None:
        self._labels = np.ones(1, np.int64)

    def slot(self, n: int) -> Slot:
        """A slot without buffers."""
        if n > len(self._labels):
            self._labels = np.ones(n, np.int64)
        return Slot(n, {})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Class 1 for each row."""
        return {"label": self._labels[: slot.n]}
