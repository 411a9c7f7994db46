"""Devices that only take time: a batch of n takes ``a_ms + n b_ms``, as planted, and no core while it lasts.

For what the system around a model does, without a model: whether lanes scale over devices, whether a tuner finds the
optimum that was planted, whether the ledger puts time where it was spent, on a machine that has neither the devices
nor the cores. It reads pictures like any model, and its answers depend on them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import Attestation, Backend, ModelFile, Runner, Slot, TensorSpec
from plugins.errors import DeviceNotFound
from plugins.options import option
from plugins.sleep import sleep_until

_MOST_DEVICES = 16
_MOST_LANES = 1024
_SAMPLE_SHAPE = (3, 224, 224)
_CLASSES = 9
_LOOKED_AT = 64
_SPREAD = 1000


@dataclass(frozen=True, slots=True)
class Planted:
    """What was planted. ``jitter`` is the sigma of a lognormal factor whose mean is 1."""

    a_ms: float = option(2.0, "ms that every batch takes", least=0, unit="milliseconds")
    b_ms: float = option(1.0, "ms that each sample of a batch adds", least=0, unit="milliseconds")
    jitter: float = option(0.0, "how much a batch's time varies: sigma of a factor around 1", least=0, most=1)
    seed: int = option(0, "seed of the jitter", least=0)
    devices: int | None = option(None, "devices behind the name cpu, one unless told", least=1, most=_MOST_DEVICES)


class _Queue:
    """Lanes are let in one at a time, in the order they came, as a GPU's stream does it.

    A plain lock lets the lane that just left in again before the one that waits has woken up.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._came = self._left = 0

    def __enter__(self) -> None:
        with self._changed:
            turn = self._came
            self._came += 1
            self._changed.wait_for(lambda: self._left == turn)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._left += 1
            self._changed.notify_all()


class Simulated(Backend):
    """A device that serves one batch at a time, or as many as the option ``devices`` says.

    Lanes are spread over those in turn. Input: float32 rows of the model's sample shape (3, 224, 224 where none is
    told); output: a label from 0 to 9 that depends on the row.
    """

    name = "simulated"
    needs_model = False
    reads_host_arrays = True
    options = Planted
    outputs = (TensorSpec("label", "int64", (None,), "N"),)

    def __init__(self, planted: Planted, device: str, sample_shape: tuple[int, ...]) -> None:
        self.planted = planted
        self.inputs = (TensorSpec.of("images", "float32", (None, *sample_shape)),)
        self._device = device
        self._queues = [_Queue() for _ in range(planted.devices or 1)]
        self._lanes = _MOST_LANES * int(device.partition(":")[2] or 0)  # each device has a noise of its own

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        """Make the devices; only the model's sample shape is looked at. Raises ``ValueError`` for a bad option."""
        planted: Planted = cls.read_options(options)
        cls.check_device(device)
        if device != "cpu" and planted.devices:
            raise ValueError(f"backend option devices goes with the device cpu, got device '{device}'")
        planted = replace(planted, devices=planted.devices or 1)
        return cls(planted, device, model.sample_shape or _SAMPLE_SHAPE)

    @classmethod
    def devices(cls) -> list[str]:
        """``cpu``, and one name for each device there can be."""
        return ["cpu", *(f"sim:{number}" for number in range(_MOST_DEVICES))]

    @classmethod
    def check_device(cls, device: str) -> None:
        """``cpu``, or a device by name."""
        if device not in cls.devices():
            raise DeviceNotFound(
                f"the simulated backend has cpu, or sim:0 to sim:{_MOST_DEVICES - 1}, got device '{device}'"
            )

    @classmethod
    def version(cls) -> str:
        """There is no runtime to have a version."""
        return "none"

    def runner(self, place: str = "host") -> SimulatedRunner:
        """A new runner on the next device in turn."""
        lane = self._lanes
        self._lanes += 1
        noise = np.random.default_rng([self.planted.seed, lane])
        return SimulatedRunner(self.planted, self._queues[lane % len(self._queues)], noise, self.inputs[0].sample_shape)

    def attest(self) -> Attestation:
        """Nothing is executed, on as many devices as were asked for, or on one by name."""
        planted = self.planted
        behind = {"devices": str(planted.devices)} if self._device == "cpu" else {}
        details = {
            **behind,
            "batch_ms": f"{planted.a_ms:g} + {planted.b_ms:g} n",
            "jitter": f"{planted.jitter:g}",
        }
        return Attestation(self._device, "simulated", "none", "none", details)


class SimulatedRunner(Runner):
    """Holds its device for as long as was planted, then answers."""

    def __init__(
        self,
        planted: Planted,
        queue: _Queue,
        noise: np.random.Generator,
        sample_shape: tuple[int, ...],
    ) -> None:
        self._planted = planted
        self._queue = queue
        self._noise = noise
        self._rows: NDArray[Any] = np.zeros((0, *sample_shape), np.float32)

    def slot(self, n: int) -> Slot:
        """Rows of a buffer that grows to the largest batch."""
        if n > len(self._rows):
            self._rows = np.zeros((n, *self._rows.shape[1:]), np.float32)
        return Slot(n, {"images": self._rows[:n]})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """Wait for the device and for the planted time; label: 1 plus 1000 times the sum of a row's begin, modulo 9."""
        planted = self._planted
        took_ms = planted.a_ms + slot.n * planted.b_ms
        if planted.jitter:
            took_ms *= self._noise.lognormal(-(planted.jitter**2) / 2, planted.jitter)
        with self._queue:
            until_ns = time.monotonic_ns() + int(took_ms * 1e6)
            [rows] = slot.buffers.values()
            sums = np.abs(rows.reshape(len(rows), -1)[:, :_LOOKED_AT]).sum(axis=1, dtype=np.float64)
            labels = 1 + np.rint(_SPREAD * sums).astype(np.int64) % _CLASSES
            sleep_until(until_ns)
        return {"label": labels}
