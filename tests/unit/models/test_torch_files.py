"""What is known of PyTorch's files without running them is what the backend knows of them when it runs them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import ModelFile
from backends.pytorch import PyTorch
from sut.errors import InputError
from sut.models.content import check_model, content_digest, normalises_in_training
from sut.models.precision.convert import quantising_node
from tests.core import module_needs
from tests.unit.small_models import CLASSES, SIZE

module_needs("pytorch")

import torch  # noqa: E402

from tests.unit.torch_models import MAKER, write_torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.mark.parametrize("batch", [None, 4])
def test_inputs_and_outputs_of_an_exported_graph_are_the_backends(tmp_path: Path, batch: int | None) -> None:
    path = write_torch(tmp_path / "small.pt2", batch=batch)

    info = check_model(path)
    with PyTorch.load(ModelFile(path), "cpu", 1, 1) as backend:
        assert info.inputs == tuple(replace(spec, layout="") for spec in backend.inputs)
        assert info.outputs == tuple(replace(spec, layout="") for spec in backend.outputs)
    assert info.inputs[0].shape == (batch, 3, SIZE, SIZE)
    assert (info.outputs[0].shape, quantising_node(path), normalises_in_training(path)) == (
        (batch, CLASSES),
        None,
        False,
    )
    assert content_digest(path) == content_digest(path)


@pytest.mark.parametrize("name", ["small.pt", "small.torchscript", "small.pth"])
def test_other_files_leave_to_the_recipe_what_they_do_not_tell(tmp_path: Path, name: str) -> None:
    path = write_torch(tmp_path / name)

    info = check_model(path)
    options = {"module": MAKER} if name.endswith(".pth") else {}
    with PyTorch.load(ModelFile(path, sample_shape=(3, SIZE, SIZE)), "cpu", 1, 1, options) as backend:
        assert [spec.name for spec in info.inputs + info.outputs] == [
            spec.name for spec in backend.inputs + backend.outputs
        ]
    assert [spec.shape for spec in info.inputs + info.outputs] == [(None, 3, None, None), (None, None)]


def test_a_state_dict_of_before_archives_is_one(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)

    assert check_model(tmp_path / "old.pth").inputs[0].name == "input0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trained.pt2", r"was exported in training mode \(torch.ops.aten.dropout.default\): call eval"),
        ("cut.pt2", "cut off or damaged .* expected a graph of torch.export"),
        ("text.pt", "5 bytes of something else, expected TorchScript"),
        ("nothing.pth", "does not exist, expected a PyTorch state dict"),
        ("state.pt", r"is a PyTorch state dict, expected TorchScript; let its name end in .pth"),
        ("script.pth", r"is TorchScript, expected a PyTorch state dict; let its name end in .pt"),
        ("other.pt2", "is a zip archive, expected a graph of torch.export"),
        ("future.pt2", "is not as PyTorch 2.13 exports it"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / name
    match name:
        case "trained.pt2":
            write_torch(path, training=True)
        case "cut.pt2":
            path.write_bytes(write_torch(tmp_path / "small.pt2").read_bytes()[:3000])
        case "text.pt":
            path.write_text("hello")
        case "state.pt":
            write_torch(tmp_path / "state.pth").rename(path)
        case "script.pth":
            write_torch(tmp_path / "script.pt").rename(path)
        case "other.pt2" | "future.pt2":
            with zipfile.ZipFile(path, "w") as archive:
                inner = "a/models/model.json" if name == "future.pt2" else "a/b"
                archive.writestr(inner, json.dumps({"graph_module": {"graph": {"nodes": []}}}))

    with pytest.raises(InputError, match=said) as refused:
        check_model(path)
    assert "\n" not in str(refused.value)


def test_a_byte_that_changed_in_an_archive_is_found(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", b"pickle")
        archive.writestr("weights/data/0", b"numbers of a layer")
    assert check_model(path).inputs
    path.write_bytes(path.read_bytes().replace(b"of a layer", b"of a liver"))

    with pytest.raises(InputError, match=r"weights\.pth is damaged \(weights/data/0 has another checksum\)"):
        check_model(path)
