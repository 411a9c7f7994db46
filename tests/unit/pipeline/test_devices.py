"""Several devices as one: who has which lanes, what they must be alike in, what is told of them, where threads stay."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from backends.base import Attestation, Backend, Loaded, ModelFile, Runner, Slot, TensorSpec
from backends.on_gpu import GpuRunner, SharedGpu, gpu_places
from sut.config import RunConfig, make_config
from sut.errors import InputError, SetupError
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.choice import Choice, prior
from sut.pipeline.devices import Devices, Unit
from sut.pipeline.system import SUT
from sut.process.affinity import Affinity
from tests.fake_gpu import FakeDriver, plug_in, unplug
from tests.unit.pipeline.test_assembly import OnGpu

CORE = min(os.sched_getaffinity(0))


class Made(Runner):
    def __init__(self, of: str, place: str) -> None:
        self.of, self.place, self.cores = of, place, os.sched_getaffinity(0)

    def slot(self, n: int) -> Slot:
        return Slot(n, {})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        return {}


@dataclass
class Device(Loaded):
    """One that is loaded, and remembers how."""

    name: str
    lanes: int
    model: str = "A"
    precision: str = "fp32"
    inputs: tuple[TensorSpec, ...] = (TensorSpec("images", "float32", (None, 3, 4, 4)),)
    outputs: tuple[TensorSpec, ...] = ()
    batch_sizes: tuple[int, ...] | None = None
    transfers: bool = True
    reads_host_arrays: bool = False
    provider: str = "CUDA"
    places: tuple[str, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)
    closed: bool = False

    def __post_init__(self) -> None:
        self.places = self.places or (self.name, "pinned", "host")
        self.cores = os.sched_getaffinity(0)

    def runner(self, place: str = "host") -> Made:
        return Made(self.name, place)

    def attest(self) -> Attestation:
        return Attestation(self.name, self.model, self.provider, self.precision, self.told)

    def close(self) -> None:
        self.closed = True


def loaded(
    *unlike: dict[str, Any], lanes: int = 2, cores: frozenset[int] | None = None
) -> tuple[Devices, list[Device]]:
    """As many devices as there are dicts of what is special of each."""
    made: list[Device] = []

    def load(name: str, lanes: int) -> Device:
        made.append(Device(name, lanes, **unlike[len(made)]))
        return made[-1]

    units = [Unit(f"cuda:{number}", cores) for number in range(len(unlike))]
    return Devices(units, load, lanes), made


def test_lanes_go_to_the_devices_in_turn() -> None:
    devices, made = loaded({}, {}, {}, lanes=7)

    assert [each.lanes for each in made] == [3, 2, 2]
    runners: list[Any] = [devices.runner(devices.places[0]) for _ in range(7)]
    assert [each.of for each in runners] == [f"cuda:{n % 3}" for n in range(7)]
    assert [each.place for each in runners] == [each.of for each in runners]
    assert vars(devices.runner("pinned"))["place"] == "pinned"


def test_a_model_and_its_lanes_are_made_on_their_cores() -> None:
    before = os.sched_getaffinity(0)
    devices, made = loaded({}, {}, cores=frozenset({CORE}))

    assert [each.cores for each in made] == [{CORE}] * 2
    assert vars(devices.runner())["cores"] == {CORE}
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("unlike", "said"),
    [
        ({"batch_sizes": (1, 2)}, "batch_sizes differ"),
        ({"transfers": False}, "transfers differ"),
        ({"inputs": ()}, "inputs differ"),
        ({"outputs": (TensorSpec("labels", "int64", (None,)),)}, "outputs differ"),
        ({"reads_host_arrays": True}, "reads_host_arrays differ"),
        ({"places": ("host",)}, "places differ"),
    ],
)
def test_devices_that_lanes_cannot_be_shared_over_are_refused(unlike: dict[str, Any], said: str) -> None:
    with pytest.raises(
        SetupError, match=f"cuda:0 and cuda:1 cannot share a run: their {said}; take devices of one kind"
    ):
        loaded({}, unlike)


def test_what_was_loaded_before_one_that_fails_is_unloaded() -> None:
    made: list[Device] = []

    def load(name: str, lanes: int) -> Device:
        if made:
            raise ValueError("no luck")
        made.append(Device(name, lanes))
        return made[0]

    with pytest.raises(ValueError, match="no luck"):
        Devices([Unit("cuda:0"), Unit("cuda:1")], load, 2)
    assert made[0].closed


def test_all_are_attested_and_what_differs_is_told_of_each() -> None:
    both, made = loaded({"told": {"kernels": "x", "gpu": "here"}}, {"model": "B", "told": {"gpu": "there"}})

    assert both.attest() == Attestation(
        "cuda:0,cuda:1",
        "A, B",
        "CUDA",
        "fp32",
        {
            "kernels": "cuda:0: x; cuda:1: ",
            "gpu": "cuda:0: here; cuda:1: there",
            "different_devices": "cuda:0: A; cuda:1: B",
        },
    )
    both.close()
    assert all(each.closed for each in made)
    alike, _ = loaded({"told": {"kernels": "x"}}, {"told": {"kernels": "x"}})
    assert alike.attest() == Attestation("cuda:0,cuda:1", "A", "CUDA", "fp32", {"kernels": "x"})


@pytest.mark.parametrize(
    ("unlike", "said"), [({"precision": "fp16"}, "fp16 by CUDA"), ({"provider": "another"}, "fp32 by another")]
)
def test_devices_that_execute_otherwise_are_refused(unlike: dict[str, Any], said: str) -> None:
    devices, _ = loaded({}, unlike)

    with pytest.raises(SetupError, match=f"cuda:0 executes in fp32 by CUDA, cuda:1 in {said}: take devices of one"):
        devices.attest()


# What is asked for


@pytest.mark.parametrize(
    ("asked", "device"),
    [
        ("gpu", "cuda"),
        ("GPU,cuda:1", "cuda:0,cuda:1"),
        ("cuda:01, cuda:0", "cuda:1,cuda:0"),
        ("sim:1,sim:0", "sim:1,sim:0"),
    ],
)
def test_devices_have_one_name_each(asked: str, device: str) -> None:
    assert make_config({"device": asked}).device == device


@pytest.mark.parametrize(
    "asked", ["cuda:0,cuda:0", "cuda,cuda:0", "gpu,cuda", "cuda:0,cuda:00", "cpu,cpu", "sim:3,sim:3"]
)
def test_a_device_that_is_there_twice_is_refused(asked: str) -> None:
    with pytest.raises(InputError, match=r"^device: the device \S+ is there twice; name each once, got "):
        make_config({"device": asked})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        *((each, "an empty name between commas") for each in ("sim:0,", ",sim:0", "cpu,,sim:0")),
        ("", "the name of the device is empty"),
        *((each, "a blank within a name; expected commas between devices") for each in ("cuda:1 2", "sim:0 sim:1")),
    ],
)
def test_a_device_without_a_name_is_refused(asked: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^device: {said}, got '{asked}'$"):
        make_config({"device": asked})


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"device": "sim:0,simm:1"}, InputError, "unknown device 'simm:1'"),
        (
            {"device": "sim:0,cuda:1"},
            SetupError,
            "the simulated backend has cpu, or sim:0 to sim:15, got device 'cuda:1'",
        ),
        (
            {"device": "sim:0,sim:1", "boundary": "device"},
            InputError,
            "--boundary device keeps the samples in the memory",
        ),
        ({"device": "sim:0", "affinity": "lanes=0/1"}, InputError, "got 2 core sets of the lanes for --device sim:0;"),
        ({"device": "sim:0,sim:1,sim:2", "affinity": "lanes=0/1"}, InputError, "expected one, or one for each device"),
        ({"affinity": "lanes=8191"}, SetupError, "core 8191 is not there"),
    ],
)
def test_what_cannot_be_had_is_refused(
    settings: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "device" in settings:
        monkeypatch.setattr("sut.process.affinity.allowed_cores", lambda: frozenset({0, 1}))
    with pytest.raises(error) as refused:
        assemble(RunConfig(**{"backend": "simulated", "preprocess": "simulated", **settings}))

    assert said in str(refused.value)


def parts_of(affinity: Affinity = Affinity(), **settings: Any) -> Assembly:  # noqa: B008 - frozen
    parts = assemble(RunConfig(**{"backend": "simulated", "preprocess": "simulated", **settings}))
    return replace(parts, affinity=affinity)


def test_units_are_devices_or_core_sets() -> None:
    sets = (frozenset({0}), frozenset({1}))

    assert parts_of(device="sim:0,sim:1").units == (Unit("sim:0"), Unit("sim:1"))
    assert parts_of(Affinity(lanes=sets)).units == (Unit("cpu", sets[0]), Unit("cpu", sets[1]))
    assert parts_of(Affinity(sets[:1]), device="sim:0,sim:1").units == (Unit("sim:0", sets[0]), Unit("sim:1", sets[0]))
    assert parts_of(Affinity(sets), device="sim:4,sim:2").units == (Unit("sim:4", sets[0]), Unit("sim:2", sets[1]))


@pytest.mark.parametrize(
    ("settings", "choice"),
    [
        ({"scenario": "Offline", "device": "sim:0,sim:1,sim:2"}, Choice(3, 2, 8)),
        ({"scenario": "Offline", "device": "sim:0,sim:1,sim:2", "lanes": 5}, Choice(5, 1, 8)),
        ({"scenario": "Offline", "device": "sim:0,sim:1,sim:2", "lanes": 2}, Choice(3, 2, 8)),
        ({"scenario": "SingleStream", "device": "sim:0,sim:1"}, Choice(2, 4, 8)),
        ({"scenario": "Offline", "affinity": "lanes=0-3/4-7", "model_bytes": 1}, Choice(8, 1, 4)),
        ({"scenario": "MultiStream", "affinity": "lanes=0-3/4-7", "model_bytes": 1}, Choice(2, 4, 8)),
    ],
)
def test_each_device_has_the_lanes_that_one_alone_would_have(settings: dict[str, Any], choice: Choice) -> None:
    size = settings.pop("model_bytes", None)

    assert prior(RunConfig(**settings), 8, size) == choice


def test_lanes_keep_no_more_cores_busy_than_they_have() -> None:
    assert parts_of(Affinity(lanes=(frozenset({CORE}),))).lane_cores == 1
    assert parts_of().lane_cores == len(os.sched_getaffinity(0))


# On GPUs: over stand-ins


@pytest.mark.parametrize(
    ("options", "gpus", "place"),
    [({}, [2, 0, 2], "cuda:2"), ({"gpu": 2}, [2, 2, 2], "pinned"), ({"gpu": 1}, [1] * 3, "pinned")],
)
def test_a_lane_preprocesses_on_its_own_gpu(options: dict[str, Any], gpus: list[int], place: str) -> None:
    config = RunConfig(device="cuda:2,cuda:0", boundary="jpeg", preprocess_options=options, backend="simulated")
    parts = replace(parts_of(), config=config, preprocessor=OnGpu)
    made: list[Any] = [parts.preprocessor_for(parts.spec.recipe, lane) for lane in range(3)]

    assert [each.gpu for each in made] == gpus
    devices, _ = loaded({}, {}, {})
    devices.places = ("cuda:2", *devices.places[1:])
    assert parts.place_for(devices) == place


class OnGpus(Backend):
    """A model on a GPU that is not there."""

    name = "on-gpus"
    needs_model = False
    outputs = (TensorSpec("label", "int64", (None,), "N"),)

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> OnGpus:
        made = cls()
        made.gpu = SharedGpu.open(device, overlap=True)
        made.inputs = (TensorSpec.of("images", "float32", (None, *(model.sample_shape or ()))),)
        made.places = gpu_places(made.gpu.device.index)
        return made

    @classmethod
    def version(cls) -> str:
        return "1"

    def runner(self, place: str = "host") -> GpuRunner:
        return Answering(self.gpu, place, self.inputs, self.outputs)

    def attest(self) -> Attestation:
        return Attestation(self.gpu.place, self.gpu.device.name, "none", "none")

    def close(self) -> None:
        self.gpu.close()


class Answering(GpuRunner):
    """Answers with what the memory of its outputs has: zeros."""

    def _bind(self, n: int) -> None:
        pass

    def _unbind(self) -> None:
        pass

    def _start(self, n: int) -> None:
        pass


@pytest.fixture
def two_gpus() -> Iterator[tuple[FakeDriver, FakeDriver]]:
    drivers = FakeDriver(), FakeDriver(index=1)
    plug_in(*drivers)
    yield drivers
    unplug()


def test_lanes_on_two_gpus_have_their_slots_and_preprocessors_there(two_gpus: tuple[FakeDriver, FakeDriver]) -> None:
    config = RunConfig(device="cuda:0,cuda:1", boundary="jpeg", scenario="Offline", lanes=4, backend="simulated")
    parts = replace(parts_of(), config=config, backend=OnGpus, preprocessor=OnGpu)

    with SUT(config, complete=lambda ids, payloads: 0, assembly=parts) as system:
        slots = [lane.slot(2) for lane in system.lanes]
        gpus = [vars(source)["_preprocessor"].gpu for source in system._sources]
        addresses = [slot.buffers["images"].__cuda_array_interface__["data"][0] for slot in slots]
        on = [[number for number, driver in enumerate(two_gpus) if address in driver.memory] for address in addresses]
        assert system.backend.attest().device == "cuda:0,cuda:1"

    assert [slot.place for slot in slots] == ["cuda:0", "cuda:1"] * 2
    assert gpus == [0, 1, 0, 1]
    assert all(number in found for number, found in zip([0, 1, 0, 1], on, strict=True))
    assert not any(driver.memory for driver in two_gpus), "memory was left on a GPU"
