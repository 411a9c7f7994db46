"""``sut report``: one page of results to look at; ``sut report gpu``: what a GPU can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from sut.errors import InputError, one_line, writing
from sut.process.streams import tell
from sut.text import printable

HELP = """Write one self-contained page: what was measured on what, where the time goes, what differs, what to doubt.

Example: ./run_local.sh report output/ -o report.html

RESULTS are result.json, compare.json and study.json files, or folders with such below them; default: the folder of sut
run's results (output/). A file that cannot be read, or is of another schema, is named and skipped. The page loads
nothing: it can be mailed, printed and read on a telephone. Exit code: 0 written; 1 there is no result, or no place for
the page.

report gpu is a command of its own, which measures this machine's GPU: ./run_local.sh report gpu --help. A folder of
that name is given as ./gpu.
"""
GPU_HELP = """What this machine's GPU can do: kernels, backends and preprocessors checked, run and timed, part by part.

Example: ./run_local.sh report gpu --output output/gpu --budget 900

Writes report.json and report.md after every part, and the results of its runs beside them, in results/; at the end all
of it as one file beside the folder, gpu.zip, which sut verify judges anywhere and can be attached. The parts come
in the order of their worth, each with a limit; with --budget, those that no longer fit are left out, by name. A report
that is in the folder is gone on with: what is not run now is kept. A missed speed is shown and changes nothing. Exit
code: 0; 1 wrong usage; 2 no NVIDIA GPU; 3 a part failed, found something wrong or left something on the GPU; 130
interrupted: what ran was ended.
"""
WORD = "gpu"


class _Report(TyperCommand):
    """``sut report``, but for the first word ``gpu``, behind which a command of its own begins."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if args[:1] != [WORD]:
            return super().make_context(info_name, args, parent, **extra)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(help=GPU_HELP)(gpu)
        return typer.main.get_command(alone).make_context(f"{info_name} {WORD}", args[1:], parent, **extra)


def register(app: typer.Typer) -> None:
    """Add the command ``report`` to ``app``."""
    app.command(cls=_Report, help=HELP)(report)


def report(
    results: Annotated[list[Path] | None, typer.Argument(help="Files and folders of results; default output/.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; default report.html in the first folder.")
    ] = None,
) -> None:
    """See HELP."""
    from sut.config import output_folder
    from sut.results.collected import collect
    from sut.results.page.page import write_page
    from sut.results.schema import COMPARISON, PAGE, STUDY
    from sut.studies.comparing.page import read_comparisons
    from sut.studies.pages import read_studies

    paths = results or [output_folder()]
    named, studied = (
        [path for path in paths if path.name == name and not path.is_dir()] for name in (COMPARISON, STUDY)
    )
    collected = collect([path for path in paths if path not in (*named, *studied)])
    comparisons, unread = read_comparisons([*named, *collected.comparisons])
    studies, unknown = read_studies([*studied, *collected.studies])
    skipped = (*collected.skipped, *unread, *unknown)
    for each in skipped:
        tell(f"skipped: {each.path}: {each.reason}")
    if collected.earlier:
        folders = f"{collected.earlier:,} folder{'' if collected.earlier == 1 else 's'}"
        tell(f"left out: {folders} of earlier results; name one to see it")
    if not (collected.found or comparisons or studies):
        where = ", ".join(map(str, paths))
        raise InputError(f"{where}: no result.json to be read; ./run_local.sh makes one, and the page is of its folder")
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    page = folder / PAGE if output is None else output
    if not page.name:
        raise InputError(f"--output is '{page}', expected the name of the page; for example --output report.html")
    with writing(page):
        write_page(page, collected.found, comparisons, skipped, studies)
    count = len(collected.found)
    print(printable(f"page: {page}, {count:,} result{'' if count == 1 else 's'}"))


def gpu(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the report; default gpu in output/.")
    ] = None,
    budget: Annotated[float | None, typer.Option(min=1, help="Seconds for all of it; default: what it takes.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this part; may be given several times.")] = None,
    load: Annotated[
        Literal["first", "second"] | None,
        typer.Option(help="Only what one of two loads of packages is for: the second one brings DALI."),
    ] = None,
) -> None:
    """See GPU_HELP."""
    from sut.config import output_folder
    from sut.studies.gpu_report.report import make_report
    from sut.studies.proof.bundle import bundle

    folder = output or output_folder() / WORD
    whole = folder.resolve()  # "." and ".." have no name
    code = make_report(folder, part or (), load, budget)
    try:
        sent = bundle(folder, whole.with_name(f"{whole.name}.zip"))
        tell(f"{sent.path}: all of it in one file of {sent.nbytes / 1e6:.1f} MB, SHA-256 {sent.digest}")
    except InputError as error:
        tell(f"there is no file to send: {one_line(error)}")
    raise typer.Exit(code)
