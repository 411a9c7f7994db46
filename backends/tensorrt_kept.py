"""What TensorRT takes minutes for, as it is kept in the cache folder: engines, and how long its kernels took.

An engine belongs to all that it was built from and for. A timing cache grows with each build of a version on a GPU; of
two builds at once the later one's stays.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from backends.base import ModelFile
from backends.tensorrt_engine import Build, build_engine
from backends.tensorrt_onnx import weight_files
from kernels.gpu import GpuDevice
from plugins.cache import cache_dir, entry, make_private
from plugins.files import known_digest, read_file

_MAKER = 3
"""To be raised with every change of what is built: it is part of an engine's key."""
_MOST_TIMING_BYTES = 1 << 30
_SUM_BYTES = 32


def engine_file(trt: Any, device: GpuDevice, model: ModelFile, build: Build) -> Path:
    """The file of the engine, made where it is not kept, or is not as it was made, on ``device``, which is current.

    Raises as ``build_engine`` does.
    """
    path = model.path
    assert path is not None, "it needs a model"
    of = {
        "module": trt.__name__,
        "version": trt.__version__,
        "gpu": device.name,
        "architecture": device.architecture,
    }

    def make(engine: Path) -> None:
        timings = _timings_file(of)
        known = read_timings(timings)
        plan, timing = build_engine(trt, path, build, known, model.progress)
        engine.write_bytes(plan)
        if timing:
            keep_timings(timings, timing)

    files = {name: known_digest(path.parent / name) for name in (path.name, *weight_files(path))}
    key: dict[str, Any] = of | {"maker": _MAKER, "model": files, "build": repr(build)}
    return entry(cache_dir(), f"{path.stem}.engine", json.dumps(key, sort_keys=True), make)


def _timings_file(of: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    return cache_dir() / f"tensorrt-{digest[:16]}.timings"


def read_timings(path: Path) -> bytes:
    """A timing cache as ``keep_timings`` wrote it; nothing of a file that was cut short, or changed."""
    with suppress(OSError):
        content = read_file(path, _MOST_TIMING_BYTES)
        digest, timing = content[:_SUM_BYTES], content[_SUM_BYTES:]
        if hashlib.sha256(timing).digest() == digest:
            return timing
    return b""


def keep_timings(path: Path, timing: bytes) -> None:
    """Write it behind its SHA-256, in one move. Where that cannot be done the next build takes its time again."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    with suppress(OSError):
        make_private(path.parent)
        try:
            part.write_bytes(hashlib.sha256(timing).digest() + timing)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
