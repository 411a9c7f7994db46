"""Several devices, or core sets of the CPU's, as one loaded model: a copy on each, whose runners are given in turn.

Lane n works on unit n modulo their number. What is asked waits in one queue for all lanes, so that each unit takes as
much of the work as it can do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

from backends.base import Attestation, Loaded, Runner, Traffic
from kernels.device import HOST_PLACES
from sut.errors import SetupError
from sut.process.affinity import Cores, ranges, staying_on

_ALIKE = ("inputs", "outputs", "batch_sizes", "reads_host_arrays", "transfers", "details")
"""What lanes take for granted of each other."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A device, and the cores on which its lanes and its runtime's threads stay; None: wherever the process may."""

    device: str
    cores: Cores | None = None

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return self.device if self.cores is None else f"{self.device} cores {ranges(self.cores)}"


class Devices(Loaded):
    """The units' models, loaded one after the other, each on its own cores."""

    def __init__(self, units: Sequence[Unit], load: Callable[[str, int], Loaded], lanes: int) -> None:
        """``load`` loads on a device for so many of the ``lanes``, of which the first units have the odd ones.

        Raises ``SetupError`` for units that cannot do the same work, and what ``load`` does.
        """
        self._units, self._lane = units, count()
        self._loaded: list[Loaded] = []
        with ExitStack() as stack:
            for number, unit in enumerate(units):
                with staying_on(unit.cores):
                    self._loaded.append(stack.enter_context(load(unit.device, len(range(number, lanes, len(units))))))
            first = self._loaded[0]
            self.inputs, self.outputs, self.batch_sizes = first.inputs, first.outputs, first.batch_sizes
            self.reads_host_arrays, self.transfers = first.reads_host_arrays, first.transfers
            self.details = first.details
            self.places = first.places
            self._check_alike()
            self._stack = stack.pop_all()

    def _check_alike(self) -> None:
        for unit, loaded in zip(self._units, self._loaded, strict=True):
            differs = [name for name in _ALIKE if getattr(loaded, name) != getattr(self, name)]
            kinds = [[place.partition(":")[0] for place in each.places] for each in (self, loaded)]
            if differs := [*differs, *(["places"] if kinds[0] != kinds[1] else [])]:
                raise SetupError(
                    f"{self._units[0].name} and {unit.name} cannot share a run: their {', '.join(differs)} differ; "
                    "take devices of one kind"
                )

    def runner(self, place: str = "host") -> Runner:
        """A new runner on the next unit; of ``places``, which are the first unit's, it has its own of the same kind."""
        number = next(self._lane) % len(self._units)
        loaded = self._loaded[number]
        own = place if place in HOST_PLACES else loaded.places[self.places.index(place)]
        with staying_on(self._units[number].cores):
            return loaded.runner(own)

    def attest(self) -> Attestation:
        """What all of them attest, the devices listed; details that differ are told for each.

        Raises ``SetupError`` where they execute by different providers or in different precisions.
        """
        told = [loaded.attest() for loaded in self._loaded]
        names = [unit.name for unit in self._units]
        first = told[0]
        for name, each in zip(names, told, strict=True):
            if (each.provider, each.precision) != (first.provider, first.precision):
                raise SetupError(
                    f"{names[0]} executes in {first.precision} by {first.provider}, {name} in {each.precision} by "
                    f"{each.provider}: take devices of one kind, or a precision that both have"
                )
        if len({each.model for each in told}) > 1:
            raise SetupError(f"not the same model: {_joined(names, [each.model for each in told])}")
        details = {
            key: _joined(names, [each.details.get(key, "") for each in told])
            for key in dict.fromkeys(key for each in told for key in each.details)
        }
        models = list(dict.fromkeys(each.device_name for each in told))
        if len(models) > 1:
            details["different_devices"] = _joined(names, [each.device_name for each in told])
        devices = dict.fromkeys(each.device for each in told)
        return Attestation(",".join(devices), ", ".join(models), first.provider, first.precision, details, first.model)

    def traffic(self) -> Traffic | None:
        """That of all units."""
        found = [each for each in (loaded.traffic() for loaded in self._loaded) if each is not None]
        return sum(found, Traffic()) if found else None

    def round_trip(self) -> str | None:
        """All of them, one after the other."""
        told = [each for each in (loaded.round_trip() for loaded in self._loaded) if each is not None]
        return ", ".join(told) if told else None

    def check_unchanged(self) -> None:
        """All of them, one after the other."""
        for loaded in self._loaded:
            loaded.check_unchanged()

    def close(self) -> None:
        """Unload all."""
        self._stack.close()


def _joined(names: Sequence[str], values: Sequence[str]) -> str:
    """One value for all where it is the same, else each by name."""
    if len({*values}) == 1:
        return values[0]
    return "; ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
