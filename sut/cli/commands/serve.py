"""``sut serve``: the pipeline behind the open inference protocol, over HTTP and gRPC."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sut.cli.console import Console
from sut.cli.emit import emit
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.config import RUN_FILES
from sut.errors import ExitCode, InputError
from sut.pipeline.assembly import assemble
from sut.pipeline.identify.settings import check_one_model

if TYPE_CHECKING:
    from sut.serve.engine import Engine
    from sut.serve.server import Serving

HELP = """Serve the pipeline to clients of the open inference protocol (KServe's v2), over HTTP and gRPC.

Example: ./run_local.sh serve --boundary jpeg --lanes 2

--boundary says what a request brings: the model's input (tensor, the default), decoded pixels, or a picture file's
bytes (jpeg), which is then preprocessed here. The answer is the model's own outputs; with --answers the labels that a
run gives LoadGen, which MLPerf's network division asks for. Takes the options of sut run that
describe the system; batches are filled as in Server, with --max-batchsize and --max-wait, and within --max-latency
where that is set. /v2/health/ready says whether requests are taken, /metrics what was done, in Prometheus' form.

Listens on this machine alone unless --host says else: there is no authentication. Ctrl-C answers what was taken up,
then ends with 0.
"""

_LEFT_OUT = (
    *(*RUN_FILES, "demo", "accuracy", "find_peak_performance", "scenario", "qps", "time_s", "rules", "overwrite"),
    *(
        "samples_per_query",
        "performance_sample_count",
        "watchdog_s",
        "output",
        "audit_conf",
        "user_conf",
        "mlperf_conf",
    ),
    *("serve", "cache", "cache_dir", "preprocessed_dir", "use_preprocessed_dataset"),
)


def register(app: typer.Typer) -> None:
    """Add the command ``serve`` to ``app``."""
    app.command(cls=like_run(*_LEFT_OUT), help=HELP)(serve)


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on; another than this machine's is open to others.")] = (
        "127.0.0.1"
    ),
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="For HTTP; 0: any that is free.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="For gRPC; 0: any that is free.")] = 8001,
    called: Annotated[str | None, typer.Option("--served-name", help="What clients call the model.")] = None,
    max_inflight: Annotated[int, typer.Option(min=1, help="Requests in flight at most; others are refused.")] = 4096,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections of HTTP at most.")] = 8192,
    max_request_mb: Annotated[float, typer.Option(min=0.001, max=2000.0, help="Size of a request at most.")] = 64.0,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds that a request waits at most.")] = 60.0,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds to answer what is in flight at the end.")] = 10.0,
    certificate: Annotated[Path | None, typer.Option(help="For TLS: a PEM file, with --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    answers: Annotated[bool, typer.Option("--answers", help="Answer with labels, as LoadGen is answered.")] = False,
    shared_memory: Annotated[bool, typer.Option(help="Let clients on this host name memory of theirs.")] = False,
) -> None:
    """See HELP."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read at the import; of a taken port it has a line of its own
    from sut.serve.engine import Engine
    from sut.serve.server import Address, serve
    from sut.serve.service import Limits, Service

    options = context.obj
    _check_certificate(certificate, key)
    [config] = configs_of(options.model_copy(update={"scenario": "Server"}))
    check_one_model(config, "sut serve has")
    parts = assemble(config, Console(options.as_json).note)
    address = Address(host, http_port, grpc_port, certificate, key)
    limits = Limits(max_inflight, int(max_request_mb * 1e6), timeout)
    with Engine(config, parts, answers) as engine:
        engine.warm(config.max_latency_s)
        name = called or parts.spec.name

        def ready(at: Serving) -> None:
            row = {"http": at.http, "grpc": at.grpc, "model": name, "boundary": config.boundary}
            emit("serve", [row], _lines(at, engine, name), options.as_json)
            sys.stdout.flush()

        serve(lambda: Service(engine, name, limits, shared_memory), address, max_connections, grace, ready)
    raise typer.Exit(ExitCode.OK)


def _lines(at: Serving, engine: Engine, name: str) -> list[str]:
    config = engine.config
    system = f"{config.backend} {config.device}, {config.precision}, lanes {config.lane_count}"
    return [
        f"serving {name} on {at.http} and {at.grpc}: a request brings {engine.inputs[0].name} ({config.boundary})",
        f"{system}, batches of {engine.policy.max_batch} at most; Ctrl-C ends it",
    ]


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise InputError("--certificate and --key go together: TLS needs both")
    for file in filter(None, (certificate, key)):
        if not file.is_file():
            raise InputError(f"{file}: no such file; --certificate and --key take PEM files")
