"""``sut study NAME``: questions that take runs of many models or settings, each with a table and a page."""

from __future__ import annotations

import typer

from sut.cli.study_beyond_inference import add_beyond_inference
from sut.cli.study_brokers import add_brokers
from sut.cli.study_energy import add_energy
from sut.cli.study_ladder import add_ladder
from sut.cli.study_models import add_models
from sut.cli.study_shortcuts import add_shortcuts

HELP = "Questions that take runs of many models or settings: a table, a page."


def register(app: typer.Typer) -> None:
    """Add the group of commands ``study`` to ``app``."""
    group = typer.Typer(help=HELP, rich_markup_mode=None)
    add_beyond_inference(group)
    add_brokers(group)
    add_energy(group)
    add_ladder(group)
    add_models(group)
    add_shortcuts(group)
    app.add_typer(group, name="study")
