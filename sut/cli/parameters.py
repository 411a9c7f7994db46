"""Commands that have the options of ``sut run``, from the one list of them, beside those in their signature."""

from functools import cache
from typing import Any

import typer
from typer.core import TyperCommand

from plugins.extras import names
from sut.cli.options import Options, options
from sut.config import AUTO
from sut.config.option import Option

_LISTS = ("inputs", "outputs")  # their options take comma lists

OF_LOADGEN = ("demo", "scenario", "accuracy", "find_peak_performance", "time_s", "qps", "max_latency_s")
"""What commands leave out whose load is their own."""


def like_run(*without: str) -> type[TyperCommand]:
    """The class of a command that has the options of ``sut run``, but for the fields ``without``.

    They come behind those in its signature, and are in ``context.obj``, as ``Options``.
    """

    class LikeRun(TyperCommand):
        def __init__(self, **more: Any) -> None:
            self._shared = [each for name, each in _parameters().items() if name not in without]
            super().__init__(**more | {"params": [*more["params"], *self._shared]})

        def invoke(self, ctx: Any) -> Any:
            words = {each.name: ctx.params.pop(each.name) for each in self._shared}
            given = {name: word for name, word in words.items() if word is not None and word is not False}
            own = {name: given.pop(name) for name in Options.model_fields.keys() & given}
            lists = {name: given[name].split(",") for name in _LISTS if name in given}
            ctx.obj = Options(settings=given | lists, left_out=without, **own)
            return super().invoke(ctx)

    return LikeRun


@cache
def _parameters() -> dict[str, Any]:
    """What Typer makes of each option, by its field."""
    return {name: _parameter(name, option) for name, option in options().items()}


def _parameter(name: str, option: Option) -> Any:
    """The parameter of a command that has this option alone: Typer has no other door to what it makes of one."""
    kind = str if name in AUTO else option.takes
    metavar = f"<{option.unit}>" if option.unit else None
    known = f"{', '.join(names(option.plugs))}, or a plug-in's name." if option.plugs else option.help
    told = typer.Option(None, str(option.flag), metavar=metavar, help=known)

    # Where annotations were kept as text, as elsewhere here, Typer would not find what this one names.
    def command(value: kind = told) -> None: ...  # type: ignore[valid-type]

    alone = typer.Typer(add_completion=False)
    alone.command()(command)
    [made] = typer.main.get_command(alone).params
    made.name = name
    return made
