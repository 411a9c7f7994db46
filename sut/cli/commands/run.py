"""``sut run``: the scenarios of one configuration."""

from __future__ import annotations

import difflib
import shlex
import sys

import typer

from sut.cli.commands import COMMANDS
from sut.cli.options import configs_of
from sut.cli.parameters import like_run
from sut.cli.repeat import read_repeated
from sut.errors import InputError

HELP = """Run LoadGen scenarios.

Example: ./run_local.sh onnxruntime resnet50 --weights random --scenario SingleStream,Offline --time 10

Without --time MLPerf's own durations apply (600 s a scenario). With --rules closed all that breaks a rule of MLPerf's
closed division is refused, and what is finished is kept. Option names may be written with - or _.
Exit code: 0 done and VALID; 1 wrong usage or input; 2 something is not installed; 3 a run failed; 4 INVALID or
accuracy target missed; 130 interrupted.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``run`` to ``app``."""
    app.command(cls=like_run(), help=HELP)(run)


def run(context: typer.Context) -> None:
    """See HELP."""
    import backends.registry
    from sut.cli.console import Console
    from sut.run.runner import run_all

    asked = context.obj
    configs = configs_of(asked)
    backend = configs[0].backend
    near = difflib.get_close_matches(backend, [*backends.registry.names(), *COMMANDS], 1)
    # run_local.sh takes a first word that is no command for a backend.
    if near and near[0] in COMMANDS:
        root = context.find_root().info_name
        raise InputError(f"unknown command or backend '{backend}'; did you mean {near[0]}? {root} --help shows all")
    repeats = None
    if asked.from_ is not None and "model" not in asked.settings:
        repeats = read_repeated(asked.from_).model_sha256
    raise typer.Exit(run_all(configs, Console(asked.as_json), shlex.join(sys.argv), repeats))
