"""The commands: parse, call, print. Only ``main`` exits."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from plugins.errors import DeviceNotFound
from sut.cli.commands import COMMANDS
from sut.errors import ExitCode, SutError, broken_import, one_line
from sut.process.signals import Noted
from sut.process.streams import guard_streams, tell_error
from sut.text import printable_lines

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A LoadGen system under test for vision models. Example: ./run_local.sh run --scenario Offline --time 5",
)


def _version(asked: bool) -> None:
    if asked:
        from sut import __version__
        from sut.version import NAME, commit

        print(f"{NAME} {__version__}", *([f"commit {found}"] if (found := commit()) else []), sep=", ")
        raise typer.Exit


@app.callback()
def _commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version, and the commit it is of.")
    ] = False,
) -> None:
    """What all commands have in common."""


def _normalise(arguments: list[str]) -> list[str]:
    """Write option names with ``-``: the reference harness has some with ``_``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    named = [re.sub("^--[^=]*", lambda name: name[0].replace("_", "-"), word) for word in arguments[:end]]
    return named + arguments[end:]


@cache
def _register(name: str) -> None:
    import_module(f"sut.cli.commands.{name.replace('-', '_')}").register(app)


def register(called: str = "") -> None:
    """Add the command that is called to ``app``; all of them where it is none, which takes half a second more."""
    for each in (called,) if called in COMMANDS else COMMANDS:
        _register(each)


def main(ending: Noted) -> int:
    """Run the command of the process's arguments: every error becomes one line and an exit code, which is returned.

    A signal that ``ending`` notes interrupts the command; one that came before does so at its start.
    """
    guard_streams()
    return _main(_normalise(sys.argv[1:]), ending)


_REMEDIES = ("install ", "update ")
"""Words of a message that says by itself what to do about a missing module."""


def _main(arguments: list[str], ending: Noted) -> int:
    debug = "--debug" in arguments
    try:
        # Here a signal is only noted: what is raised in an import, a package may swallow.
        register(next(iter(arguments), ""))
        with ending.raising():
            code = app(arguments, prog_name=_called(), standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
        # Typer turns Ctrl-C into a plain 130 without a word; a run that was interrupted has said so itself.
        told = isinstance(code, ExitCode) and code == ExitCode.INTERRUPTED
        if not told and (ending.came or code == ExitCode.INTERRUPTED):
            return _interrupted()
        return int(code or 0)
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except (Exception, SystemExit) as error:
        # What became of a signal in the hands of some package is no failure; an error of ours is, whatever came later.
        if ending.came and not isinstance(error, SutError):
            return _interrupted()
        return _failed(error, arguments, debug)


def _called() -> str:
    """How the user calls the commands: by the console script, or by the script that sets up a checkout."""
    return "./run_local.sh" if Path(sys.argv[0]).name == "__main__.py" else "sut"


def _failed(error: Exception | SystemExit, arguments: list[str], debug: bool) -> int:
    """One line on what went wrong, and its exit code."""
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        hint = f"; {context.command_path} --help shows what there is" if context else ""
        tell_error(error.format_message().rstrip(".") + hint)
        return ExitCode.USAGE
    if isinstance(error, SutError):
        return _explain(error, one_line(error), error.exit_code, debug)
    if (broken := broken_import(error)) is not None:
        if arguments[:1] == ["doctor"]:
            from sut.cli.doctor.report import command

            return command("--json" in arguments)
        return _explain(error, broken, ExitCode.SETUP, debug)
    if isinstance(error, ModuleNotFoundError):
        text = one_line(error)
        if not any(word in text for word in _REMEDIES):
            text += "; ./run_local.sh sets up what is needed"
        return _explain(error, text, ExitCode.SETUP, debug)
    if isinstance(error, DeviceNotFound):
        return _explain(error, one_line(error), ExitCode.SETUP, debug)
    if isinstance(error, SystemExit):
        raise error
    hint = "; --debug shows where" if _has_debug(arguments) else ""
    return _explain(error, f"{type(error).__name__}: {one_line(error)}{hint}", ExitCode.FAILED, debug)


def _has_debug(arguments: Sequence[str]) -> bool:
    """Whether the command that these arguments are of has the option ``--debug``."""
    commands = getattr(typer.main.get_command(app), "commands", {})
    found = commands.get(next(iter(arguments), ""))
    return any("--debug" in parameter.opts for parameter in getattr(found, "params", ()))


def _explain(error: BaseException, text: str, code: ExitCode, debug: bool) -> ExitCode:
    if debug:
        print(printable_lines("".join(traceback.format_exception(error))), file=sys.stderr)
    tell_error(text)
    return code


def _interrupted() -> int:
    tell_error("interrupted")
    return ExitCode.INTERRUPTED
