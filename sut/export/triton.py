"""A model repository for Triton Inference Server: the model for its ONNX Runtime, or the pipeline as a Python model."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from plugins.packages import CHECKOUT
from plugins.registry import suggest
from sut.config import RunConfig
from sut.datasets.demo import DEMO
from sut.errors import InputError, writing
from sut.export import triton_worker
from sut.export.triton_config import TritonConfig, is_checked
from sut.models.preparation import Prepared, check_unchanged
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.choice import prior
from sut.pipeline.identify.settings import check_one_model
from sut.process.messages import to_text
from sut.run.planning import check_effect
from sut.serve.engine import Engine
from sut.text import Progress, Say

Form = Literal["onnxruntime", "python"]
FORMS: tuple[Form, ...] = get_args(Form)
_CONFIG = "config.pbtxt"
_VERSION = "1"
_OF_RUNS = ("preprocess_workers", "affinity", "slowdown", "rules", "serve")
"""What says how a run works, and no server is told."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: a ``model`` in a folder of the repository, its ``files`` in there.

    ``checked``: whether its config was read by config.proto, for which tritonclient must be installed.
    """

    model: str
    form: Form
    boundary: str
    folder: Path
    files: tuple[str, ...]
    checked: bool


def export(
    config: RunConfig, form: str, repository: Path, *, overwrite: bool, say: Say, progress: Progress
) -> Exported:
    """Write a model repository, or one more model into it: whole or not at all.

    Raises ``InputError`` for what a form cannot have and for a model that is there already, ``SetupError`` where
    something is missing here: what is exported has been loaded.
    """
    chosen = next((each for each in FORMS if each == form), None)
    if chosen is None:
        raise InputError(f"unknown form '{form}'; {suggest(form, FORMS)}")
    _check(config, chosen)
    parts = assemble(config, say, progress)
    folder = repository / parts.spec.name
    _check_place(folder, overwrite)
    parts = replace(parts, config=prior(config, parts.lane_cores, parts.model_bytes).apply(config))
    written = (_for_onnxruntime if chosen == "onnxruntime" else _for_python)(parts)
    checked = is_checked(written.text)
    with writing(repository), _staged(folder) as staged:
        (staged / _VERSION).mkdir()
        (staged / _CONFIG).write_text(written.text, encoding="utf-8")
        (_copy_model if chosen == "onnxruntime" else _write_python)(parts, staged / _VERSION)
        files = tuple(sorted(str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()))
    return Exported(parts.spec.name, chosen, config.boundary, folder, files, checked)


def _check(config: RunConfig, form: Form) -> None:
    check_one_model(config, "sut export triton writes")
    for name in _OF_RUNS:
        if getattr(config, name) != RunConfig.model_fields[name].get_default(call_default_factory=True):
            raise InputError(
                f"{name} is of runs, and the server that this is exported for does not know it; leave it out"
            )
    if len(config.devices) > 1:
        raise InputError(f"a model is exported for one device, got --device {config.device}; name one of them")
    check_effect([config])
    if form == "python":
        return
    if config.backend != "onnxruntime":
        raise InputError(
            "the form onnxruntime takes the .onnx file that the backend onnxruntime runs, got --backend "
            f"{config.backend}; take that, or --form python"
        )
    if config.boundary != "tensor":
        raise InputError(
            f"the form onnxruntime has the model alone, got --boundary {config.boundary}; take --boundary tensor, or "
            "--form python, which preprocesses too"
        )


def _for_onnxruntime(parts: Assembly) -> TritonConfig:
    config, model = parts.config, _model_of(parts)
    with parts.load_backend() as backend:
        attested = backend.attest()
        parts.check_attested(attested)
        inputs, outputs = backend.inputs, backend.outputs
    batches = all(spec.shape[:1] == (None,) for spec in (*inputs, *outputs))
    threads = {"intra_op_thread_count": str(config.threads_per_lane), "inter_op_thread_count": "1"}
    facts = {"sha256": model.sha256 or "", "precision": attested.precision}
    return TritonConfig(
        name=parts.spec.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        inputs=inputs,
        outputs=outputs,
        max_batch=config.largest_batch if batches else 0,
        max_delay_us=round(1000 * config.max_wait_ms),
        instances=config.lane_count,
        gpu=_gpu(config),
        parameters=threads | facts | {f"sha256 of {name}": found for name, found in _copies(model).values()},
    )


def _for_python(parts: Assembly) -> TritonConfig:
    config = parts.config
    with Engine(config, parts) as engine:
        return TritonConfig(
            name=parts.spec.name,
            backend="python",
            inputs=engine.inputs,
            outputs=[each for each in engine.outputs if not config.outputs or each.name in config.outputs],
            max_batch=engine.policy.max_batch,
            max_delay_us=round(1000 * config.max_wait_ms),
            instances=config.lane_count,
            ragged=engine.wire == "pixels",
            parameters=engine.facts,
        )


def _gpu(config: RunConfig) -> int | None:
    kind, _, number = config.device.partition(":")
    return int(number or 0) if kind == "cuda" else None


def _model_of(parts: Assembly) -> Prepared:
    """The model's file, which every backend has that reads .onnx."""
    if parts.model is None:
        raise InputError(f"backend {parts.config.backend} has no model's file to export; take --form python")
    return parts.model


def _copies(model: Prepared) -> dict[Path, tuple[str, str]]:
    """What is copied, each with its name beside the others and its SHA-256."""
    names = {
        path: "model.onnx" if path == model.file else str(path.relative_to(model.file.parent)) for path in model.loads
    }
    return {path: (names[path], found) for path, found in model.loads.items()}


def _copy_model(parts: Assembly, folder: Path) -> None:
    model = _model_of(parts)
    for path, (name, _) in _copies(model).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    check_unchanged(model, "while it was exported", "export it again")


def _write_python(parts: Assembly, folder: Path) -> None:
    config = parts.config
    # Instances are the lanes, and the server fills batches. Pictures come with requests: no data set is looked for.
    alone = {"lanes": 1, "max_wait_ms": 0.0}
    none = {"dataset": DEMO, "dataset_path": None, "dataset_list": None, "count": None}
    orders = triton_worker.Orders(
        command=(sys.executable, "-P", "-m", triton_worker.__name__),
        folder=Path.cwd(),
        checkout=CHECKOUT,
        config=config.model_copy(update=alone | none),
        prepared=parts.model,
    )
    shutil.copyfile(Path(triton_worker.__file__).with_name("triton_model.py"), folder / "model.py")
    (folder / "pipeline.json").write_text(to_text(orders), encoding="utf-8")


def _check_place(folder: Path, overwrite: bool) -> None:
    """Raise ``InputError`` where something is there that is not to be replaced, or is none of ours."""
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise InputError(f"{folder} is there already; choose another --output, or add --overwrite")
    if folder.is_symlink() or not (folder / _CONFIG).is_file():
        raise InputError(f"{folder} is no model of a repository (a folder with {_CONFIG}); choose another --output")


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` where the ``with`` ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged, old = (folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.{end}") for end in ("part", "old"))
    staged.mkdir()
    try:
        yield staged
        if folder.exists():
            folder.rename(old)
        staged.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
