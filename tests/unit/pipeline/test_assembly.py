"""Parts that fit: options are refused before anything is made, what executes is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.base import Attestation
from backends.openvino import OpenVino
from backends.simulated import Simulated as SimulatedBackend
from plugins.options import option
from preprocess.base import Mark, Target
from preprocess.simulated import PlantedMs, Simulated
from sut.config import RunConfig
from sut.errors import InputError, SetupError
from sut.models.preparation import Prepared
from sut.models.registry import find
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.ledger import Counter
from sut.pipeline.system import SUT


@dataclass(frozen=True, slots=True)
class CountingOptions(PlantedMs):
    gpu: int = option(-1, "the number of a GPU")


class Counting(Simulated):
    """Counts the pictures it prepared, as a preprocessor does that falls back for some."""

    options = CountingOptions

    def __init__(self, recipe: Any, *, gpu: int = -1, decode_ms: float = 0.0) -> None:
        super().__init__(recipe, decode_ms=decode_ms, resize_ms=0, normalize_ms=0)
        self.gpu = gpu
        self.decode_ms = decode_ms
        self.pictures = 0

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> Any:
        self.pictures += len(encoded)
        return super().run(encoded, target, mark)

    def counts(self) -> Mapping[str, int]:
        return {"pictures were decoded elsewhere": self.pictures, "pictures were lost": 0}


def parts_of(**settings: Any) -> Assembly:
    config = RunConfig(**{"backend": "simulated", "preprocess": "simulated", **settings})
    return replace(assemble(config), preprocessor=Counting)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backend": "onnxruntime", "precision": "bf16"}, "backend onnxruntime cannot be asked for bf16"),
        ({"precision": "int8"}, "backend simulated cannot be asked for int8; it has fp32"),
        (
            {"backend_options": {"bogus": 1}},
            "simulated has no option 'bogus'; known: a_ms (ms that every batch",
        ),
        ({"preprocess_options": {"bogus": 1}}, "simulated has no option 'bogus'; known: decode_ms (milliseconds"),
        ({"preprocess": "opencv", "preprocess_options": {"gpu": 1}}, "opencv has no option 'gpu'; it has none"),
        ({"preprocess": "cuda", "preprocess_options": {"typo": 1}}, "cuda has no option 'typo'; known: gpu (index"),
        ({"fold": True}, "--fold puts normalisation into the model, and backend simulated has none"),
        ({"backend": "null", "fold": True}, "--fold puts normalisation into the model, and backend null has none"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], said: str
) -> None:
    def never(*anything: Any) -> Any:
        raise AssertionError("made")

    monkeypatch.setattr("sut.pipeline.assembly.identified", never)

    with pytest.raises(InputError) as refused:
        assemble(RunConfig(**{"backend": "simulated", "preprocess": "simulated", **settings}))

    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("asked", "found", "said"),
    [
        ({}, {}, None),
        ({"precision": "int8"}, {"precision": "int8"}, None),
        ({"precision": "int8"}, {"precision": "none"}, None),
        ({"device": "cuda"}, {"device": "cuda:0"}, None),
        ({"device": "cuda:1"}, {"device": "cuda:1"}, None),
        ({"precision": "int8"}, {"precision": "fp32"}, "asked simulated for int8, but it executes in fp32"),
        ({"precision": "bf16"}, {"precision": "fp32+bf16"}, "asked simulated for bf16, but it executes in fp32+bf16"),
        ({}, {"precision": "int8"}, "asked simulated for fp32, but it executes in int8"),
        ({"device": "cuda"}, {"device": "cuda:1"}, "asked simulated for the device cuda, but it executes on cuda:1"),
        ({"device": "cuda:1"}, {"device": "cuda:0"}, "asked simulated for the device cuda:1, but it executes on cuda"),
        ({}, {"device": "gpu.0"}, "asked simulated for the device cpu, but it executes on gpu.0"),
    ],
)
def test_what_executes_is_what_was_asked_for(asked: dict[str, Any], found: dict[str, str], said: str | None) -> None:
    parts = replace(parts_of(), config=RunConfig(**{"backend": "simulated", **asked}))
    attested = Attestation(**{"device": "cpu", "device_name": "", "provider": "", "precision": "fp32", **found})

    if said is None:
        parts.check_attested(attested)
    else:
        with pytest.raises(SetupError) as refused:
            parts.check_attested(attested)
        assert str(refused.value).startswith(said)


def test_what_to_do_is_said_where_too_little_of_a_model_executes_in_int8() -> None:
    file = Path("made.onnx")
    config = RunConfig(backend="openvino", precision="int8")
    parts = replace(parts_of(), config=config, backend=OpenVino, model=Prepared(file, file, file, "int8"))

    with pytest.raises(SetupError, match=r"in fp32\+int8; it has integer kernels for too little of this model"):
        parts.check_attested(Attestation("cpu", "", "", "fp32+int8"))


@pytest.mark.parametrize(
    ("asked", "found", "said"),
    [
        ("fp32", "fp32+int8", None),
        ("int8", "int8+fp32", None),
        ("fp32", "int8", "executes in int8; the file is quantised already: run it with --precision int8"),
        ("int8", "bf16+int8", "executes in bf16+int8; the file is quantised already: run it with --precision bf16"),
        ("int8", "f64", "executes in f64"),
    ],
)
def test_a_quantised_file_is_asked_for_by_what_most_of_it_executes_in(asked: Any, found: str, said: str | None) -> None:
    file = Path("quantised.onnx")
    config = RunConfig(backend="openvino", precision=asked)
    parts = replace(parts_of(), config=config, backend=OpenVino, model=Prepared(file, file, file, quantised=True))
    attested = Attestation("cpu", "", "", found)

    if said is None:
        parts.check_attested(attested)
    else:
        with pytest.raises(SetupError) as refused:
            parts.check_attested(attested)
        assert str(refused.value) == f"asked openvino for {asked}, but it {said}"


@pytest.mark.parametrize(
    ("device", "options", "gpu"),
    [
        ("cpu", {}, -1),
        ("cuda", {}, -1),
        ("cuda:2", {}, 2),
        ("cuda:2,cuda:3", {}, 2),
        ("cuda:2", {"gpu": 0}, 0),
        ("gpu.1", {}, -1),
    ],
)
def test_a_preprocessor_is_on_the_backends_gpu_unless_told(device: str, options: dict[str, Any], gpu: int) -> None:
    parts = replace(
        parts_of(),
        config=RunConfig(device=device, preprocess_options={"decode_ms": 0.5, **options}, backend="simulated"),
    )

    made = parts.preprocessor_for(find("efficientnet-lite0").recipe)

    assert isinstance(made, Counting)
    assert (made.gpu, made.decode_ms) == (gpu, 0.5)


@pytest.mark.parametrize(
    ("device", "options", "gpus"),
    [
        ("cpu", {}, []),
        ("gpu.1", {}, []),
        ("cuda", {}, [0]),
        ("cuda:2,cuda:1", {}, [1, 2]),
        ("cpu", {"gpu": 1}, [1]),
        ("cuda:2", {"gpu": 0}, [0, 2]),
    ],
)
def test_the_gpus_of_a_run_are_the_backends_and_the_preprocessors(
    device: str, options: dict[str, Any], gpus: list[int]
) -> None:
    parts = parts_of() if options else replace(parts_of(), preprocessor=Simulated)

    assert replace(parts, config=RunConfig(device=device, preprocess_options=options)).gpus == gpus


def test_backend_options_reach_the_backend() -> None:
    with parts_of(backend_options={"a_ms": 7, "devices": 3}).load_backend() as backend:
        assert isinstance(backend, SimulatedBackend)
        assert (backend.planted.a_ms, backend.planted.devices) == (7, 3)


# Counts


@pytest.mark.parametrize(("boundary", "notes"), [("jpeg", ["3 pictures were decoded elsewhere"]), ("tensor", [])])
def test_a_system_tells_what_its_preprocessors_counted(boundary: str, notes: list[str]) -> None:
    parts = parts_of(boundary=boundary, scenario="SingleStream", backend_options={"a_ms": 0, "b_ms": 0})

    with SUT(parts.config, complete=lambda ids, payloads: 0, assembly=parts) as system:
        system.library.load(range(3))
        assert system.notes() == []
        system.ask([0, 1, 2])
        assert system.notes() == notes
    assert system.notes() == notes, "asked for when the run is over"


@pytest.mark.parametrize(("boundary", "notes"), [("jpeg", []), ("tensor", ["3 pictures were decoded elsewhere"])])
def test_a_library_tells_what_was_counted_while_it_was_loaded(boundary: str, notes: list[str]) -> None:
    parts = parts_of(boundary=boundary, scenario="SingleStream", backend_options={"a_ms": 0, "b_ms": 0})

    with SUT(parts.config, complete=lambda ids, payloads: 0, assembly=parts) as system:
        assert system.library.notes() == []
        system.library.load([0, 1])
        system.library.load([1, 2])
        assert system.library.notes() == notes


def test_the_counts_of_lanes_and_workers_add_up() -> None:
    settings = {"boundary": "jpeg", "scenario": "Offline", "backend_options": {"a_ms": 0, "b_ms": 0}}
    counted = []
    for more in ({"lanes": 2}, {"preprocess_workers": 2}):
        parts = parts_of(**settings, **more)
        with SUT(parts.config, complete=lambda ids, payloads: 0, assembly=parts) as system:
            system.library.load(range(11))
            system.ask(np.arange(11).tolist() * 4)
            counted.append(system.notes())

    assert counted == [["44 pictures were decoded elsewhere"]] * 2


@pytest.mark.parametrize("more", [{}, {"boundary": "jpeg", "preprocess_workers": 2}])
def test_queries_are_numbered_through_although_nobody_started_the_run(more: dict[str, Any]) -> None:
    parts = parts_of(scenario="Server", backend_options={"a_ms": 0, "b_ms": 0}, **more)
    with SUT(parts.config, complete=lambda ids, payloads: 0, assembly=parts) as system:
        system.library.load(range(3))
        for query in range(3):
            system.issue([query], [query])

    assert system.ledger.words[Counter.DONE] == 3
    assert (system.ledger.batch_of[:3] > 0).all()


class OnGpu(Counting):
    places = ("cuda", "host")


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"boundary": "device"}, "cuda:1"),
        ({"boundary": "tensor"}, "pinned"),
        ({"boundary": "jpeg"}, "cuda:1"),
        ({"boundary": "pixels"}, "cuda:1"),
        ({"boundary": "jpeg", "preprocess_options": {"gpu": 0}}, "pinned"),
        ({"boundary": "jpeg", "preprocess_workers": 2}, "pinned"),
        ({"boundary": "jpeg", "made_by": Counting}, "pinned"),
    ],
)
def test_a_slot_lies_where_what_fills_it_can_write(settings: dict[str, Any], place: str) -> None:
    made_by = settings.pop("made_by", OnGpu)
    told = settings.pop("preprocess_options", {})
    config = RunConfig(backend="simulated", preprocess="simulated", device="cuda:1", **settings)
    parts = replace(parts_of(), config=config.model_copy(update={"preprocess_options": told}), preprocessor=made_by)
    backend: Any = SimpleNamespace(places=("cuda:1", "pinned", "host"))

    assert parts.place_for(backend) == place
    backend.places = ("host",)
    if config.boundary == "device":
        with pytest.raises(SetupError, match="simulated takes its input from host memory only"):
            parts.place_for(backend)
    else:
        assert parts.place_for(backend) == "host"


@pytest.mark.parametrize("kept", [{"cache": True}, {"preprocessed_dir": Path("tensors")}])
def test_tensors_made_by_a_shortcut_are_not_kept(kept: dict[str, Any], tmp_path: Path) -> None:
    settings = {name: tmp_path if name == "preprocessed_dir" else value for name, value in kept.items()}
    taken = RunConfig(
        backend="simulated",
        preprocess="fused",
        cache_dir=tmp_path,
        preprocess_options={"scaled_decode": True, "fast_dct": False},
        **settings,
    )
    parts = assemble(taken)

    assert parts.shortcuts == ("scaled_decode",)
    with pytest.raises(InputError, match=r"scaled_decode of fused is taken; leave out --cache and --preprocessed_dir"):
        parts.tensor_store()
    exact = assemble(taken.model_copy(update={"preprocess_options": {}}))
    assert exact.shortcuts == ()
    store = exact.tensor_store()
    assert store is not None
    store.close()
