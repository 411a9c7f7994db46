"""A model that actors on a cluster have loaded, one for each lane, as if a backend had loaded it here."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Attestation, Loaded, Runner, Slot
from sut.errors import RunError, SetupError, reason_of
from sut.pipeline.assembly import Assembly
from sut.pipeline.cluster.actors import Infer, ModelOrders, Opened
from sut.pipeline.cluster.member import Member, Tensor, TensorLost
from sut.pipeline.cluster.session import Cluster, beating
from sut.version import source_sha256

_MOST_TRIES = 3
_MIXED = ("inputs", "outputs", "batch_sizes", "version", "sha256")
"""What all actors must tell alike."""


class OnCluster(Loaded):
    """The actors' models."""

    reads_host_arrays = True
    details = ("compute",)

    def __init__(self, parts: Assembly, cluster: Cluster) -> None:
        """Raises ``SutError`` in one line where an actor has no place, cannot load the model, or is unlike others."""
        config = parts.config
        self._parts, self._lane, self._sent = parts, count(), _Sent()
        self._orders = _orders_of(parts)
        self._opened: Opened | None = None
        self._lock = threading.Lock()
        with ExitStack() as stack:
            self._members = []
            for number in range(config.lane_count):
                name, make = f"infer-{number}", partial(Member, cluster, begin=self._begin, redo=config.redo_lost)
                member = make(name=name, kind=Infer, resources=config.infer_resources, beat=beating(parts.progress))
                stack.callback(member.close)
                self._members.append(member)
            for member in self._members:
                member.start()
            self._stack = stack.pop_all()
        opened = self._the_opened()
        self.inputs, self.outputs, self.batch_sizes = opened.inputs, opened.outputs, opened.batch_sizes

    def _the_opened(self) -> Opened:
        assert self._opened is not None
        return self._opened

    def _begin(self, member: Member) -> None:
        """Have an actor load the model, whose files are sent where its node has none, and check what it tells."""
        opened = member.load(self._orders)
        if opened is None:
            opened = member.load(self._orders, *self._sent.references(self._orders.files))
        asked = {Path(path).name: found for path, found in self._orders.files.items()}
        if opened.sha256 != asked:
            raise SetupError(f"{member.on} has loaded files of other content than were asked for")
        self._parts.check_attested(opened.attestation)
        with self._lock:
            first = self._opened = self._opened or replace(opened, version=self._parts.backend.version())
        differs = [name for name in _MIXED if getattr(opened, name) != getattr(first, name)]
        here, there = first.attestation, opened.attestation
        if (here.provider, here.precision) != (there.provider, there.precision):
            differs.append("attestation")
        if differs:
            told = "; ".join(f"{getattr(opened, name)}, expected {getattr(first, name)}" for name in differs)
            raise SetupError(
                f"{member.on} is not like this process and the actors before it ({', '.join(differs)}: {told})"
            )

    def runner(self, place: str = "host") -> Runner:
        """A stand-in for the next actor's; it takes references where actors preprocess."""
        member = self._members[next(self._lane) % len(self._members)]
        kind = _ByReference if self._parts.config.prepares_on_ray else _ByValue
        return kind(member, self.inputs)

    def attest(self) -> Attestation:
        """What the first attests, which all do alike, and on which node each is."""
        told = self._the_opened().attestation
        actors = "; ".join(member.on for member in self._members)
        return replace(told, details={**told.details, "actors": actors})

    def close(self) -> None:
        """End the actors."""
        self._stack.close()


def _orders_of(parts: Assembly) -> ModelOrders:
    config, model = parts.config, parts.model
    files = [] if model is None else sorted(model.loads.items(), key=lambda item: item[0] != model.file)
    return ModelOrders(
        source_sha256=source_sha256(),
        backend=config.backend,
        device=config.device,
        threads=config.threads_per_lane,
        options=dict(config.backend_options),
        precision=config.precision,
        sample_shape=parts.spec.recipe.sample_shape,
        quantised=model is not None and model.model_file(config.precision, parts.spec).quantised,
        largest_batch=config.max_batchsize,
        files={str(path): found for path, found in files},
    )


class _Sent:
    """The model's files in the cluster's object store, put there once."""

    def __init__(self) -> None:
        self._references: list[Any] = []

    def references(self, files: Mapping[str, str]) -> Sequence[Any]:
        """One for each file. Raises ``SetupError`` where they lie in several folders, or cannot be read."""
        if not self._references:
            import ray

            if len({Path(path).parent for path in files}) > 1:
                raise SetupError("the model's files are in several folders: bring them to the same path on each node")
            for path in files:
                try:
                    content = Path(path).read_bytes()
                except OSError as error:
                    raise SetupError(f"{path}: {reason_of(error)}") from error
                self._references.append(ray.put(content))
        return self._references


class _ByValue(Runner):
    """Sends the slot's rows."""

    def __init__(self, member: Member, inputs: Sequence[Any]) -> None:
        self._member, self._inputs = member, inputs
        self._buffers: dict[int, dict[str, NDArray[Any]]] = {}

    def slot(self, n: int) -> Slot:
        if n not in self._buffers:
            self._buffers[n] = {each.name: np.zeros((n, *each.sample_shape), each.dtype) for each in self._inputs}
        return Slot(n, self._buffers[n])

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        return self._ask("infer", slot.n, *(slot.buffers[each.name] for each in self._inputs))

    def _ask(self, method: str, *arguments: Any) -> Mapping[str, Any]:
        member = self._member
        outputs, taken_ns, cpu_ns = member.ask(method, *arguments)
        member.cluster.cpu_ns[member.process] = cpu_ns
        self.details_ns = (taken_ns,)
        found: Mapping[str, Any] = outputs
        return found


class _ByReference(_ByValue):
    """Has the actor fetch tensors from the actors that made them: a slot's rows are ``Tensor``s."""

    def slot(self, n: int) -> Slot:
        [only] = self._inputs
        return Slot(n, {only.name: np.full(n, None, object)})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        [buffer] = slot.buffers.values()
        tensors: list[Tensor] = [each for each in buffer if each is not None]
        for _ in range(_MOST_TRIES):
            try:
                return self._ask("infer_rows", slot.n, *(each.reference for each in tensors))
            except TensorLost as error:
                self._member.again(tensors, error)
        raise RunError(f"{self._member.on}: its tensors were lost {_MOST_TRIES} times")
