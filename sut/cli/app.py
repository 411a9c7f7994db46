"""The commands: parse, call, print. Only ``main`` exits."""

from __future__ import annotations

import difflib
import inspect
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from sut.errors import ExitCode, InputError, SutError, broken_import, one_line
from sut.process.signals import Noted
from sut.process.streams import guard_streams, tell_error
from sut.text import printable_lines

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A LoadGen system under test for vision models. Example: ./run_local.sh run --scenario Offline --time 5",
)

RUN_HELP = """Run LoadGen scenarios.

Example: ./run_local.sh onnxruntime resnet50 --weights random --scenario SingleStream,Offline --time 10

Without --time MLPerf's own durations apply (600 s a scenario). Option names may be written with - or _.
Exit code: 0 done and VALID; 1 wrong usage or input; 2 something is not installed; 3 a run failed; 4 INVALID or
accuracy target missed; 130 interrupted.
"""


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


@app.command(help=RUN_HELP)
def run(
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="The embedded demo: all scenarios from JPEG to label for some seconds, then accuracy."
        ),
    ] = False,
    backend: Annotated[
        str | None, typer.Option(help="onnxruntime, openvino, null, simulated, or a plug-in's name.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A known model's name, or an .onnx or .xml file.")] = None,
    model_name: Annotated[
        str | None, typer.Option(help="Which known model a file is; with --recipe, its name in the results.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="How to preprocess for a file of any model: a YAML file, or a recipe's name.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, gpu (= cuda), cuda:1, or a name the backend lists.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="SingleStream, MultiStream, Server, Offline; a list; all.")
    ] = None,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Accuracy mode instead of performance mode.")] = False,
    find_peak_performance: Annotated[
        bool, typer.Option("--find-peak-performance", help="LoadGen's own search for Server's highest rate.")
    ] = False,
    preprocess: Annotated[
        str | None, typer.Option(help="opencv, fused, dali, dali-resize, cuda, dali-gpu, or a plug-in's name.")
    ] = None,
    kernels: Annotated[
        str | None, typer.Option(help="The preprocessor cuda's hot path: fused, tiled or naive.")
    ] = None,
    boundary: Annotated[str | None, typer.Option(help="Where the clock starts: device, tensor, pixels, jpeg.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, fp16 or int8: what the backend must execute.")
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Put mean, std and layout into the graph: input uint8 NHWC.")
    ] = False,
    calibration_list: Annotated[
        Path | None, typer.Option(help="Names of the pictures that calibrate int8; default: some that are not scored.")
    ] = None,
    agreement: Annotated[
        int | None,
        typer.Option(min=0, help="Crops on which a reduced precision's labels are compared with FP32's; default 1000."),
    ] = None,
    rules: Annotated[str | None, typer.Option(help="closed: refuse what MLPerf's closed division forbids.")] = None,
    weights: Annotated[str | None, typer.Option(help="trained, or random for speed work without the file.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="A preset of the reference harness: resnet50-onnxruntime, mobilenet-onnxruntime.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="demo, imagenet, or folder (no labels).")] = None,
    dataset_path: Annotated[Path | None, typer.Option(help="Folder of the pictures; default $DATA_DIR.")] = None,
    dataset_list: Annotated[Path | None, typer.Option(help="List file; default val_map.txt in that folder.")] = None,
    cache: Annotated[
        int | None, typer.Option(min=0, max=1, help="1: keep preprocessed tensors on disk for the next start.")
    ] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where; default tensors in the cache folder.")] = None,
    preprocessed_dir: Annotated[
        Path | None, typer.Option(help="Folder of .npy tensors, one per picture; missing ones are made.")
    ] = None,
    use_preprocessed_dataset: Annotated[
        bool, typer.Option("--use-preprocessed-dataset", help="Use those tensors as they are; no picture is read.")
    ] = False,
    data_format: Annotated[str | None, typer.Option(help="NCHW or NHWC; only checked against the recipe.")] = None,
    inputs: Annotated[str | None, typer.Option(help="Input names the model must have, comma list.")] = None,
    outputs: Annotated[
        str | None, typer.Option(help="Output names the model must have, comma list; one of them answers.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Use the first COUNT pictures of the data set.")] = None,
    time: Annotated[float | None, typer.Option(help="min_duration in seconds.")] = None,
    qps: Annotated[float | None, typer.Option(help="Server's rate, or what Offline expects.")] = None,
    max_latency: Annotated[float | None, typer.Option(help="Server's latency bound in seconds.")] = None,
    max_batchsize: Annotated[str | None, typer.Option(help="Samples in a batch at most; default auto.")] = None,
    max_wait: Annotated[
        float | None, typer.Option(help="How long Server waits to fill a batch, in ms; default 0.")
    ] = None,
    preprocess_workers: Annotated[
        int | None, typer.Option(help="Threads that only preprocess and feed the lanes; default 0.")
    ] = None,
    lanes: Annotated[str | None, typer.Option(help="Pipelines that work at once; default auto.")] = None,
    threads: Annotated[str | None, typer.Option(help="Runtime threads a lane; default auto.")] = None,
    samples_per_query: Annotated[int | None, typer.Option(help="MultiStream's samples in a query.")] = None,
    performance_sample_count: Annotated[int | None, typer.Option(help="Samples that are loaded at a time.")] = None,
    user_conf: Annotated[Path | None, typer.Option(help="LoadGen settings; default user.conf of the checkout.")] = None,
    mlperf_conf: Annotated[Path | None, typer.Option(help="Rules on top of LoadGen's embedded ones.")] = None,
    audit_conf: Annotated[Path | None, typer.Option(help="An audit.config to obey.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where results go; default $OUTPUT_DIR, else ./output.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove an earlier result instead of renaming it.")
    ] = False,
    watchdog: Annotated[float | None, typer.Option(help="Stop a run after so many seconds without progress.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a YAML file; flags win.")] = None,
    from_: Annotated[Path | None, typer.Option("--from", help="Repeat the run of this result.json; flags win.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE: any setting of a YAML file.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks, and keep LoadGen's trace.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Collect the settings and run; see RUN_HELP."""
    options = dict(locals())
    from sut.cli.console import Console
    from sut.cli.options import configs_of
    from sut.cli.repeat import read_repeated
    from sut.run.runner import run_all

    configs = configs_of(options)
    _check_is_no_command(configs[0].backend)
    repeats = read_repeated(from_).model_sha256 if from_ is not None and model is None else None
    raise typer.Exit(run_all(configs, Console(as_json), shlex.join(sys.argv), repeats))


def _check_is_no_command(backend: str) -> None:
    """Refuse what is no backend and nearly a command: run_local.sh takes a first word that is no command for one."""
    import backends.registry

    near = difflib.get_close_matches(backend, getattr(typer.main.get_command(app), "commands", {}), 1)
    if near and backend not in backends.registry.names():
        raise InputError(
            f"unknown command or backend '{backend}'; did you mean {near[0]}? {_called()} --help shows all"
        )


def like_run(
    to: typer.Typer,
    name: str,
    help_text: str,
    handler: Callable[..., ExitCode],
    more: Callable[..., None] = lambda: None,
    without: Sequence[str] = (),
    before: Callable[[dict[str, Any]], dict[str, Any]] = lambda options: {},
) -> None:
    """Add a command that takes the options of ``sut run`` and gives ``handler`` the runs they describe.

    ``more`` has options of its own in its signature, which ``handler`` gets by name; ``without`` names those of
    ``sut run`` that would have no effect, so that it does not have them. ``before`` may change what the options are,
    where the command takes more than ``sut run`` does; what it gives is for ``handler`` too.
    """

    # Typer reads a command's options from its signature.
    added = inspect.signature(more, eval_str=True).parameters.values()
    signature = inspect.signature(run, eval_str=True)
    taken = [each for each in signature.parameters.values() if each.name not in without]

    def command(**options: Any) -> None:
        from sut.cli.options import configs_of

        own = {parameter.name: options.pop(parameter.name) for parameter in added}
        own |= before(options)
        raise typer.Exit(handler(configs_of(dict.fromkeys(without) | options), options["as_json"], **own))

    command.__signature__ = signature.replace(parameters=[*added, *taken])  # type: ignore[attr-defined]
    to.command(name, help=help_text)(command)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """What is installed, which devices and providers really work, what is missing and how to get it.

    Example: ./run_local.sh doctor --json
    """
    from sut.cli.doctor.report import command

    raise typer.Exit(command(as_json))


def _normalise(arguments: list[str]) -> list[str]:
    """Write option names with ``-``: the reference harness has some with ``_``."""
    found: list[str] = []
    for position, word in enumerate(arguments):
        if word == "--":
            return found + arguments[position:]
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = name.replace("_", "-") + equals + value
        found.append(word)
    return found


def _register() -> None:
    """Add the commands that have a file of their own."""
    from sut.cli.commands import boundary, compare, dataset, kernels, parity, report, show, tune

    boundary.register(app, like_run)
    compare.register(app, like_run)
    dataset.register(app)
    kernels.register(app)
    parity.register(app)
    report.register(app)
    show.register(app)
    tune.register(app, like_run)


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
        _register()  # where a signal is only noted: what an import raises, a package may swallow
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
