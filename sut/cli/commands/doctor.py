"""``sut doctor``: what works here, and what would have to be done for the rest."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command ``doctor`` to ``app``."""
    app.command()(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """What is installed, which devices and providers really work, what is missing and how to get it.

    Example: ./run_local.sh doctor --json
    """
    from sut.cli.doctor.report import command

    raise typer.Exit(command(as_json))
