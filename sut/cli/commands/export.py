"""``sut export triton``: a model repository for Triton Inference Server."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from plugins.packages import CHECKOUT
from sut.cli.console import Console
from sut.cli.emit import emit
from sut.cli.options import configs_of
from sut.cli.parameters import OF_LOADGEN, like_run
from sut.config import RUN_FILES, RunConfig
from sut.export.triton import Exported, export

HELP = "Files by which another server runs a model, or the whole pipeline."

TRITON_HELP = """Write a model repository for Triton Inference Server, or one more model into it.

Example: ./run_local.sh export triton --output models --boundary jpeg

--form python has the pipeline of sut run behind Triton's Python backend: preprocessing from the boundary on, backend,
precision, and the model's own outputs. It runs in a process of this Python, from this checkout: both must be there
where the server is. --form onnxruntime has the .onnx file as sut run would load it, folded or quantised, for Triton's
own ONNX Runtime. Takes the options of sut run that describe the system: --lanes become instances, --max-batchsize and
--max-wait Triton's dynamic batching. The model is loaded once before anything is written.

Exit code: 0 written; 1 wrong usage, or the model is there already; 2 something is not installed here.
"""

_SERVER = CHECKOUT / ".venv-triton/bin/tritonserver"
"""The one that the tests have, where it was made."""
_OF_A_RUN = (
    *("user_conf", "mlperf_conf", "audit_conf", "samples_per_query", "performance_sample_count", "watchdog_s"),
    *("cache", "cache_dir", "preprocessed_dir", "use_preprocessed_dataset", "agreement", "find_peak_performance"),
    *("preprocess_workers", "preprocess_place", "preprocess_batch", "affinity", "rules", "serve"),
    *("identify_backend", "identify_precision", "identify_workers", "identify_batch", "channel", "fan_out"),
)
"""What is nothing to the system that is exported, or is no part of it."""


def register(app: typer.Typer) -> None:
    """Add the group of commands ``export`` to ``app``."""
    group = typer.Typer(help=HELP, rich_markup_mode=None)
    own = ("output", "overwrite")
    group.command("triton", cls=like_run(*RUN_FILES, *OF_LOADGEN, *_OF_A_RUN, *own), help=TRITON_HELP)(triton)
    app.add_typer(group, name="export")


def triton(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="The model repository; made where it is not there.")],
    form: Annotated[str, typer.Option(help="python: the pipeline; onnxruntime: the model alone.")] = "python",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model where it is there.")] = False,
) -> None:
    """See HELP."""
    options = context.obj.model_copy(update={"scenario": "Server"})
    [config] = configs_of(options)
    console = Console(options.as_json)
    with console.working("preparing the model") as progress:
        written = export(config, form, output, overwrite=overwrite, say=console.note, progress=progress)
    row = asdict(written) | {
        "folder": str(written.folder),
        "start": _start(written),
        "drive": _drive(written, config),
    }
    emit("export triton", [row], _shown(written, row), options.as_json)


def _start(written: Exported) -> str:
    server = str(_SERVER) if _SERVER.exists() else "tritonserver"
    addresses = ("--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1")
    return shlex.join([server, "--model-repository", str(written.folder.parent.absolute()), *addresses])


def _drive(written: Exported, config: RunConfig) -> str:
    sent = () if written.boundary == "tensor" else ("--preprocess", "server")
    where = ("--device", "grpc://127.0.0.1:8001", "--boundary", written.boundary)
    known = {"--model-name": config.model_name, "--recipe": config.recipe, "--precision": config.precision}
    given = [word for name, value in known.items() if value not in (None, "fp32") for word in (name, value)]
    fold = ["--fold"] if config.fold else []
    return shlex.join(["./run_local.sh", "kserve", config.model, *where, *sent, *given, *fold])


def _shown(written: Exported, row: Mapping[str, Any]) -> Iterator[str]:
    checked = "read by config.proto" if written.checked else "not read by config.proto: tritonclient is not installed"
    yield f"{written.model}, {written.form}, asked with {written.boundary}; its config was {checked}"
    yield from (f"  {written.folder / name}" for name in written.files)
    if written.form == "python":
        yield f"it runs from {CHECKOUT}, with {sys.executable}"
    yield f"start it: {row['start']}"
    yield f"drive it: {row['drive']}"
