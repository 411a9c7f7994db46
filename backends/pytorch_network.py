"""A PyTorch module as lanes run it: the tensors of a slot in, contiguous tensors that NumPy knows out.

It is run once when it is made, by which its outputs are known, and what it multiplies and accumulates in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from backends.base import TensorSpec
from backends.pytorch_models import Loaded, dtype_name, first_line

Forward = Callable[..., tuple[Any, ...]]
"""Tensors in, in the order of the inputs; tensors out, in that of the outputs."""
_ONE_SIZE = "where it takes another number of rows only, say which: --set backend_options.batches=N"
_Place = tuple[Any, ...]
"""Where a tensor is in what a module returns: positions in tuples, keys of dicts; empty for the tensor itself."""


@dataclass(frozen=True, slots=True)
class Network:
    """What lanes call, any number of them at once, and what it was seen to do.

    ``work`` has the multiply-accumulates of one run by the dtype of what is multiplied. What ``reads_values`` waits for
    the device in the middle of a run, to decide by a number that lies there: no CUDA graph can.
    """

    forward: Forward
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    work: Mapping[str, int]
    reads_values: bool


def network(
    torch: Any, loaded: Loaded, inputs: tuple[TensorSpec, ...], dtype: Any, channels_last: bool, rows: int, device: Any
) -> Network:
    """The module made ready on a device, its numbers of ``dtype``, and run once with ``rows`` rows.

    Raises ``ValueError`` where it does not run, and where it writes into what it is given.
    """
    module = cast(torch, loaded.module, dtype).to(device)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
    ready = [_made_ready(torch, spec, dtype, channels_last) for spec in inputs]
    given = samples(torch, inputs, rows, device)
    work: Counter[str] = Counter()
    read: list[Any] = []
    try:
        with torch.no_grad(), _counting(torch, work, read):
            found = module(*(make(each) for make, each in zip(ready, given, strict=True)))
    except (ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"it does not run with {rows} row{'s' * (rows > 1)}: {first_line(error)}; {_ONE_SIZE}"
        ) from error
    if not all(torch.equal(*pair) for pair in zip(given, samples(torch, inputs, rows, device), strict=True)):
        raise ValueError("it writes into its input, which others read, too: its first layer must not work in place")
    places = _places(torch, loaded, found)
    if all(tuple(_at(found, place).shape[:1]) != (rows,) for place in places.values()):
        shapes = ", ".join(f"{name} {list(_at(found, place).shape)}" for name, place in places.items())
        raise ValueError(f"of {rows} row{'s' * (rows > 1)} it makes {shapes}; {_ONE_SIZE}")
    specs = tuple(_spec(name, _at(found, place), rows, inputs) for name, place in places.items())
    return Network(_forward(torch, module, ready, tuple(places.values())), inputs, specs, work, device in read)


def samples(torch: Any, inputs: Sequence[TensorSpec], rows: int, device: Any) -> list[Any]:
    """Tensors like a slot's, with small numbers, some of them negative."""
    made = []
    for spec in inputs:
        shape = (rows, *spec.sample_shape)
        values = torch.arange(torch.Size(shape).numel()) % 7 - 3
        made.append(values.reshape(shape).to(getattr(torch, spec.dtype)).to(device))
    return made


def compiled(torch: Any, found: Network, rows: int, device: Any) -> Forward:
    """``forward`` by torch.compile, for each number of rows anew and always as a whole; first for ``rows`` rows.

    Raises ``ValueError`` for a module that it cannot compile.
    """
    # Beyond a limit on how often one function is compiled, torch.compile would go on without compiling, and not say so.
    settings: Any = import_module("torch._dynamo.config")
    settings.recompile_limit = settings.accumulated_recompile_limit = 1024
    settings.fail_on_recompile_limit_hit = True
    forward: Forward = torch.compile(found.forward, dynamic=False, fullgraph=True)
    given = samples(torch, found.inputs, rows, device)  # not in inference mode: it is compiled for such tensors only
    try:
        with torch.inference_mode():
            forward(*given)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise ValueError(f"torch.compile cannot compile it: {first_line(error)}") from error
    return forward


def cast(torch: Any, module: Any, dtype: Any) -> Any:
    """The module with its numbers in ``dtype``, and what an ONNX graph casts to float32 in the same."""
    if dtype is torch.float32:
        return module
    for each in module.modules():
        if getattr(each, "torch_dtype", None) is torch.float32:
            each.torch_dtype = dtype
    return module.to(dtype)


def _forward(torch: Any, module: Any, ready: Sequence[Callable[[Any], Any]], places: Sequence[_Place]) -> Forward:
    half = (torch.float16, torch.bfloat16)

    def forward(*given: Any) -> tuple[Any, ...]:
        found = module(*[make(each) for make, each in zip(ready, given, strict=True)])
        tensors = [_at(found, place) for place in places]
        return tuple((each.float() if each.dtype in half else each).contiguous() for each in tensors)

    return forward


def _made_ready(torch: Any, spec: TensorSpec, dtype: Any, channels_last: bool) -> Callable[[Any], Any]:
    """What a module's input becomes before it: pictures of numbers are converted and laid out in one go."""
    if not spec.dtype.startswith("float"):
        return lambda given: given
    if channels_last and spec.layout == "NCHW":
        return lambda given: given.to(dtype=dtype, memory_format=torch.channels_last)
    return lambda given: given.to(dtype)


def _places(torch: Any, loaded: Loaded, found: object) -> dict[str, _Place]:
    """Where each output is, by its name: the file's, a dict's key, or else its number.

    Raises ``ValueError`` for what is no tensor.
    """
    leaves = list(_leaves(torch, found, ()))
    if not loaded.names:
        ends = (place[-1] if place else None for place in leaves)
        words = [end if isinstance(end, str) else f"output{at}" for at, end in enumerate(ends)]
        return dict(zip(words, leaves, strict=True))
    # A node may have outputs that its module leaves out, such as a dropout's mask.
    names = loaded.names if len(loaded.names) == len(leaves) else loaded.answers
    if len(names) != len(leaves):
        raise ValueError(f"it returns {len(leaves)} tensors, expected {', '.join(names)}")
    named = dict(zip(names, leaves, strict=True))
    return {name: named[name] for name in loaded.answers}


def _leaves(torch: Any, found: object, place: _Place) -> Iterator[_Place]:
    if isinstance(found, torch.Tensor):
        yield place
    elif isinstance(found, Mapping):
        for key, each in found.items():
            yield from _leaves(torch, each, (*place, key))
    elif isinstance(found, Sequence) and not isinstance(found, str):
        for at, each in enumerate(found):
            yield from _leaves(torch, each, (*place, at))
    else:
        raise ValueError(f"it returns a {type(found).__name__}, expected tensors")


def _at(found: Any, place: _Place) -> Any:
    for step in place:
        found = found[step]
    return found


def _spec(name: str, tensor: Any, rows: int, inputs: Sequence[TensorSpec]) -> TensorSpec:
    """What an output is outside: half precision is float32 there, and its first axis the batch."""
    shape: tuple[int | None, ...] = tuple(tensor.shape)
    if shape[:1] == (rows,) and any(spec.shape[0] is None for spec in inputs):
        shape = (None, *shape[1:])
    dtype = dtype_name(tensor.dtype)
    return TensorSpec.of(name, "float32" if dtype in ("float16", "bfloat16") else dtype, shape)


def _counting(torch: Any, work: Counter[str], read: list[Any]) -> Any:
    """A context that adds up what operators multiply and accumulate, by PyTorch's own table of their work.

    ``read`` gets the devices from where a value came to Python.
    """
    operations = import_module("torch.utils.flop_counter").flop_registry
    mode: Any = import_module("torch.utils._python_dispatch").TorchDispatchMode

    class Counting(mode):  # type: ignore[misc]
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = operator(*args, **(kwargs or {}))
            if operator._overloadpacket is torch.ops.aten._local_scalar_dense:
                read.append(args[0].device)
            count = operations.get(operator._overloadpacket)
            if count is not None:
                multiplied = [each for each in args if isinstance(each, torch.Tensor)][-1]
                work[dtype_name(multiplied.dtype)] += count(*args, **(kwargs or {}), out_val=result) // 2
            return result

    return Counting()
