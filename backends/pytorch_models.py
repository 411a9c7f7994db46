"""From a model's file to a PyTorch module: ONNX, graphs of torch.export, TorchScript, state dicts.

Graphs and TorchScript are programs, and loading one runs it. A state dict is loaded as numbers only, into a module that
a function of the user's makes; a pickled module, which is code in disguise, is refused.
"""

from __future__ import annotations

import importlib
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from backends.base import ModelFile, TensorSpec, import_runtime

_STAND_IN = "torchvision"
_MAKES = re.compile(r"GLOBAL (\S+)")
"""What PyTorch says of a pickle that is no state dict: the class that it would make."""
_FEW = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """A module in evaluation mode, and what its file tells of what goes in and out.

    ``names`` are those of its outputs, in the order in which it returns them; empty where only running it tells.
    ``answers`` are those of them that count. ``kind`` is what the file is; ``was_training`` where it left dropout and
    batch norms as they are in training.
    """

    module: Any
    kind: str
    inputs: tuple[TensorSpec, ...]
    names: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    was_training: bool = False


def load_module(torch: Any, model: ModelFile, maker: str | None) -> Loaded:
    """The module in a file, on the CPU; ``maker`` is the ``package.module:function`` that makes a state dict's.

    Raises ``ValueError`` for a file or maker that does not fit, and ``ModuleNotFoundError`` for a missing package.
    """
    assert model.path is not None
    path, suffix = model.path, model.path.suffix
    if (maker is not None) != (suffix == ".pth"):
        raise ValueError(
            f"{path}: backend option module goes with a state dict (.pth)"
            + ("" if maker else ": set it to the package.module:function that makes the module")
        )
    try:
        if suffix == ".onnx":
            return _onnx(path, model.sample_shape)
        if suffix == ".pt2":
            return _exported(torch, path, model.sample_shape)
        given = TensorSpec.of("input0", "float32", (None, *(model.sample_shape or ())))
        if suffix == ".pth":
            assert maker is not None
            module = _with_state(torch, path, maker)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
                module = torch.jit.load(path, map_location="cpu")
    except (ImportError, ValueError):
        raise
    except Exception as error:
        # What a file raises that it cannot make sense of has no class of its own.
        raise ValueError(f"{path}: pytorch cannot load it: {first_line(error)}") from error
    kind = "state dict" if suffix == ".pth" else "TorchScript"
    was_training = suffix != ".pth" and module.training
    return Loaded(module.eval(), kind, (given,), was_training=was_training)


def dtype_name(dtype: Any) -> str:
    """What NumPy calls a dtype of PyTorch's: ``float32``."""
    return str(dtype).removeprefix("torch.")


def first_line(error: BaseException) -> str:
    """What went wrong, without the pages that PyTorch adds."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("The following operation failed in the TorchScript interpreter"):
        lines = lines[-1:]
    return lines[0] if lines else type(error).__name__


def _onnx(path: Path, sample_shape: tuple[int, ...] | None) -> Loaded:
    onnx = import_runtime("pytorch", "ONNX", "onnx", "onnx")
    convert = _onnx2torch().convert
    proto = onnx.load(path)
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(_spec(onnx, value, sample_shape) for value in proto.graph.input if value.name not in weights)
    answers = tuple(value.name for value in proto.graph.output)
    node_of = {name: node for node in proto.graph.node for name in node.output}
    if passed := [name for name in answers if name not in node_of]:
        raise ValueError(f"{path}: onnx2torch takes no output that no node computes: {_few(passed)}; leave it out")
    makers = {id(node_of[name]): node_of[name] for name in answers}
    if unknown := _unknown(proto):
        raise ValueError(f"{path}: onnx2torch cannot convert {unknown}")
    # PyTorch writes them into the Python of the module, quotation marks and all: a name in a file would be run.
    for number, node in enumerate(proto.graph.node):
        node.name = f"node{number}"
    try:
        module = convert(proto)
    except Exception as error:
        # It raises what its converters raise, one for each operator.
        raise ValueError(f"{path}: onnx2torch cannot convert it: {first_line(error)}") from error
    names = tuple(name for node in makers.values() for name in node.output if name)
    return Loaded(module.eval(), "ONNX by onnx2torch", inputs, names, answers)


def _spec(onnx: Any, value: Any, sample_shape: tuple[int, ...] | None) -> TensorSpec:
    tensor = value.type.tensor_type
    axes = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim)
    return TensorSpec.of(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, axes, sample_shape)


def _unknown(proto: Any) -> str:
    """The first node of an ONNX graph that there is no converter for; empty where each has one."""
    find = importlib.import_module("onnx2torch.node_converters").get_converter
    versions = {each.domain: each.version for each in proto.opset_import}
    for node in proto.graph.node:
        version = versions.get(node.domain, 1)
        try:
            find(operation_type=node.op_type, version=version, domain=node.domain)
        except NotImplementedError:
            return f"the operator {node.op_type} (operator set {version}) of node '{node.name or node.output[0]}'"
    return ""


def _onnx2torch() -> Any:
    with _torchvision():
        return import_runtime("pytorch", "onnx2torch", "onnx2torch", "onnx2torch")


@contextmanager
def _torchvision() -> Iterator[None]:
    """Let onnx2torch be imported, two of whose converters want torchvision, where there is none that imports.

    Of PyPI's there is none for a CPU build of PyTorch. Who runs one of the two operators is told so.
    """
    before = _named(_STAND_IN)
    try:
        importlib.import_module(f"{_STAND_IN}.ops")
    except Exception:  # no such module, or what its compiled part raises beside another PyTorch
        _stand_in()
        try:
            yield
        finally:
            _forget(_STAND_IN)
            sys.modules.update(before)
    else:
        yield


def _stand_in() -> None:
    """Put into the place of torchvision what says that it is missing when it is called."""

    def missing(*args: object, **more: object) -> None:
        raise ModuleNotFoundError(
            "the operators NonMaxSuppression and RoiAlign need torchvision, which is not here or does not import; "
            "install the one that belongs to this PyTorch",
            name=_STAND_IN,
        )

    stand_in, ops = ModuleType(_STAND_IN), ModuleType(f"{_STAND_IN}.ops")
    vars(ops).update(nms=missing, box_convert=missing, roi_align=missing)
    vars(stand_in).update(ops=ops)
    _forget(_STAND_IN)
    sys.modules.update({_STAND_IN: stand_in, f"{_STAND_IN}.ops": ops})


def _named(package: str) -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if f"{name}.".startswith(f"{package}.")}


def _forget(package: str) -> None:
    for name in _named(package):
        del sys.modules[name]


def _exported(torch: Any, path: Path, sample_shape: tuple[int, ...] | None) -> Loaded:
    program = torch.export.load(path)
    signature = program.graph_signature
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    inputs = []
    for name in signature.user_inputs:
        axes = tuple(axis if isinstance(axis, int) else None for axis in values[name].shape)
        inputs.append(TensorSpec.of(name, dtype_name(values[name].dtype), axes, sample_shape))
    names = tuple(signature.user_outputs)
    # Its dropout and batch norms are as they were when it was exported: it has no eval() of its own.
    return Loaded(program.module(), "torch.export", tuple(inputs), names, names)


def _with_state(torch: Any, path: Path, maker: str) -> Any:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        makes = _MAKES.search(str(error))
        what = f"a pickle of {makes[1]}" if makes else "no state dict"
        raise ValueError(
            f"{path}: is {what}, and pickles other than state dicts run code when they are loaded: save "
            "module.state_dict(), or export the module with torch.export"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        keys = f"a dict of {_few(list(state))}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise ValueError(f"{path}: is {keys}, expected a state dict: tensors by name; save that alone")
    module = _made(torch, maker)
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    wrong = {
        "lacks": [name for name in wanted if name not in given],
        "has too": [name for name in given if name not in wanted],
        "has of another shape": [name for name in wanted if name in given and given[name] != wanted[name]],
    }
    if text := "; ".join(f"it {word} {_few(names)}" for word, names in wrong.items() if names):
        raise ValueError(f"{path}: is no state dict of what {maker} makes: {text}")
    module.load_state_dict(state)
    return module


def _made(torch: Any, maker: str) -> Any:
    """The module that a function of a package's makes."""
    where, _, name = maker.partition(":")
    expected = f"backend option module: {maker}: expected package.module:function, which makes a torch.nn.Module"
    if not where or not name.isidentifier():
        raise ValueError(expected)
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(where), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{expected}, but {error}", name=error.name) from error
    except AttributeError as error:
        raise ValueError(f"{expected}, but {error}") from error
    try:
        module = make()
    except Exception as error:
        raise ValueError(f"{expected}, but it raised {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"{expected}, but it returned a {type(module).__name__}")
    return module


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(map(str, names[:_FEW])) + more
