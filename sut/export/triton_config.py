"""The text of Triton's config.pbtxt, whose form is the message ModelConfig of config.proto."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backends.base import TensorSpec
from sut.errors import InputError, RunError, one_line

_TYPES = {
    "bool": "BOOL",
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "object": "STRING",
    "bfloat16": "BF16",
}
"""What Triton calls NumPy's types; whole files are ``object``."""


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """What a model repository says of one model.

    Axis 0 of each tensor is the batch, of ``max_batch`` rows at the most; with a ``max_batch`` of 0 the shapes are
    whole, and Triton batches nothing. ``ragged``: whether requests whose inputs differ in shape may be batched.
    ``gpu`` is the number of the GPU that the ``instances`` are on; None: on the CPU.
    """

    name: str
    backend: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    max_batch: int
    platform: str = ""
    max_delay_us: int = 0
    instances: int = 1
    gpu: int | None = None
    ragged: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The file. Raises ``InputError`` for a tensor of a type that Triton does not have."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"name: {_quoted(self.name)}"
        if self.platform:
            yield f"platform: {_quoted(self.platform)}"
        yield f"backend: {_quoted(self.backend)}"
        yield f"max_batch_size: {self.max_batch}"
        for spec in self.inputs:
            more = ["allow_ragged_batch: true"] if self.ragged else []
            yield f"input {{ {', '.join([*self._tensor(spec), *more])} }}"
        for spec in self.outputs:
            yield f"output {{ {', '.join(self._tensor(spec))} }}"
        kind = "KIND_CPU" if self.gpu is None else f"KIND_GPU, gpus: [ {self.gpu} ]"
        yield f"instance_group {{ count: {self.instances}, kind: {kind} }}"
        if self.max_batch > 1:
            yield (
                f"dynamic_batching {{ preferred_batch_size: [ {self.max_batch} ], "
                f"max_queue_delay_microseconds: {self.max_delay_us} }}"
            )
        for key, value in self.parameters.items():
            yield f"parameters {{ key: {_quoted(key)}, value: {{ string_value: {_quoted(value)} }} }}"

    def _tensor(self, spec: TensorSpec) -> Iterator[str]:
        """Name, type and shape, without the axis that Triton adds: no tensor may be left without any."""
        if spec.dtype not in _TYPES:
            raise InputError(f"{spec.name} is {spec.dtype}, expected one of {', '.join(_TYPES)}: Triton has no other")
        shape = spec.shape[1:] if self.max_batch else spec.shape
        yield f"name: {_quoted(spec.name)}"
        yield f"data_type: TYPE_{_TYPES[spec.dtype]}"
        yield f"dims: [ {', '.join(str(-1 if axis is None else axis) for axis in shape or (1,))} ]"
        if not shape:
            yield "reshape: { shape: [ ] }"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def is_checked(text: str) -> bool:
    """Read a config.pbtxt as Triton does; False where tritonclient, which has the messages, is not installed.

    Raises ``RunError`` where config.proto has no such message.
    """
    try:
        from google.protobuf import text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    except ModuleNotFoundError:
        return False
    try:
        text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise RunError(f"config.pbtxt is none by config.proto: {one_line(error)}") from error
    return True
