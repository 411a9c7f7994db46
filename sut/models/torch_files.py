"""PyTorch's model files, zip archives of which is read what has to be known before a run; nothing in them is executed.

A graph of torch.export (``.pt2``) tells its inputs and outputs, by the schema of ``torch._export.serde``, version 8.
TorchScript (``.pt``, ``.torchscript``) and a state dict (``.pth``) do not: there the recipe decides, and the batch.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.base import TensorSpec
from sut.errors import InputError
from sut.models.files import ModelInfo, foreign, read_model

KINDS: Mapping[str, str] = {
    ".pt2": "a graph of torch.export",
    ".pt": "TorchScript",
    ".torchscript": "TorchScript",
    ".pth": "a PyTorch state dict",
}
"""How the names of the files end, and what they are."""
CODE = frozenset({".pt2", ".pt", ".torchscript"})
"""Those of them that are programs: whoever loads one runs it."""

_MOST_BYTES = 2**33
_PICKLE = b"\x80"
"""How a state dict of before PyTorch 1.6 begins, which is no archive."""
_DTYPES = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64"},
    **{6: "float16", 7: "float32", 8: "float64", 12: "bool", 13: "bfloat16"},
}
_UNTOLD = ModelInfo(
    Path(),
    (TensorSpec("input0", "float32", (None, 3, None, None)),),
    (TensorSpec("output0", "float32", (None, None)),),
)
"""What is known of a module without running it: PyTorch's convolutions take NCHW."""


def check_torch(path: Path) -> ModelInfo:
    """Read the inputs and outputs of a PyTorch file, as far as it tells them, under the names that the backend has.

    Raises ``InputError`` for what is missing, empty, cut off, of another kind than its name says, or was exported in
    training mode.
    """
    expected = KINDS[path.suffix]
    data = read_model(path, _MOST_BYTES, expected)
    if path.suffix == ".pth" and data.startswith(_PICKLE):
        return ModelInfo(path, _UNTOLD.inputs, _UNTOLD.outputs)
    if not data.startswith(b"PK"):
        raise InputError(f"model {path} is {foreign(data)}, expected {expected}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = _kind(archive.namelist())
            if found != expected:
                raise InputError(f"model {path} is {found}, expected {expected}{_instead(found)}")
            if (damaged := archive.testzip()) is not None:
                raise InputError(f"model {path} is damaged ({damaged} has another checksum); copy or download it again")
            return (
                _exported(path, archive) if path.suffix == ".pt2" else ModelInfo(path, _UNTOLD.inputs, _UNTOLD.outputs)
            )
    except (zipfile.BadZipFile, EOFError):
        raise InputError(
            f"model {path} is cut off or damaged ({len(data)} bytes), expected {expected}; copy or download it again"
        ) from None


def _kind(names: list[str]) -> str:
    """What an archive is: all its files are in one folder."""
    within = {name.partition("/")[2] for name in names}
    if any(name.startswith("models/") and name.endswith(".json") for name in within):
        return KINDS[".pt2"]
    if "constants.pkl" in within:
        return KINDS[".pt"]
    return KINDS[".pth"] if "data.pkl" in within else "a zip archive"


def _instead(found: str) -> str:
    """What to do with a file of another kind than its name says."""
    suffix = next((suffix for suffix, kind in KINDS.items() if kind == found), None)
    return f"; let its name end in {suffix}" if suffix else ""


def _exported(path: Path, archive: zipfile.ZipFile) -> ModelInfo:
    graphs = [name for name in archive.namelist() if "/models/" in name and name.endswith(".json")]
    if len(graphs) != 1:
        raise InputError(f"model {path} has {len(graphs)} graphs of torch.export, expected 1")
    try:
        module = json.loads(archive.read(graphs[0]))["graph_module"]
        graph, signature = module["graph"], module["signature"]
        inputs = _tensors(graph, signature["input_specs"], "user_input")
        outputs = _tensors(graph, signature["output_specs"], "user_output")
        trained = next((node["target"] for node in graph["nodes"] if _trains(node)), None)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"model {path} is not as PyTorch 2.13 exports it, expected tensors in and out; export it again with that"
        ) from None
    if trained:
        raise InputError(
            f"model {path} was exported in training mode ({trained}): call eval() on the module, and export it again"
        )
    return ModelInfo(path, inputs, outputs)


def _tensors(graph: Mapping[str, Any], specs: list[dict[str, Any]], kind: str) -> tuple[TensorSpec, ...]:
    names = [spec[kind]["arg"]["as_tensor"]["name"] for spec in specs if kind in spec]
    return tuple(_tensor(name, graph["tensor_values"][name]) for name in names)


def _tensor(name: str, told: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name, _DTYPES.get(told["dtype"], "unknown"), tuple(axis.get("as_int") for axis in told["sizes"]))


def _trains(node: Mapping[str, Any]) -> bool:
    """Whether a node normalises by the batch it gets, or drops at random."""
    told = {each["name"]: each["arg"] for each in node["inputs"]}
    trains = any(told.get(name, {}).get("as_bool") for name in ("training", "train"))
    return trains and any(word in node["target"] for word in ("batch_norm", "dropout"))
