"""``sut report``: one page of results to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sut.errors import InputError, writing
from sut.process.streams import tell
from sut.text import printable

HELP = """Write one self-contained page: what was measured on what, where the time goes, what differs, what to doubt.

Example: ./run_local.sh report output/ -o report.html

RESULTS are result.json and compare.json files, or folders with such below them; default: the folder of sut run's
results (output/). A file that cannot be read, or is of another schema, is named and skipped. The page loads nothing: it
can be mailed, printed and read on a telephone. Exit code: 0 written; 1 there is no result, or no place for the page.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``report`` to ``app``."""
    app.command(help=HELP)(report)


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
    from sut.results.schema import COMPARISON, PAGE
    from sut.studies.comparing.page import read_comparisons

    paths = results or [output_folder()]
    named = [path for path in paths if path.name == COMPARISON and not path.is_dir()]
    collected = collect([path for path in paths if path not in named])
    comparisons, unread = read_comparisons([*named, *collected.comparisons])
    skipped = (*collected.skipped, *unread)
    for each in skipped:
        tell(f"skipped: {each.path}: {each.reason}")
    if collected.earlier:
        folders = f"{collected.earlier:,} folder{'' if collected.earlier == 1 else 's'}"
        tell(f"left out: {folders} of earlier results; name one to see it")
    if not (collected.found or comparisons):
        where = ", ".join(map(str, paths))
        raise InputError(f"{where}: no result.json to be read; ./run_local.sh makes one, and the page is of its folder")
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    page = folder / PAGE if output is None else output
    if not page.name:
        raise InputError(f"--output is '{page}', expected the name of the page; for example --output report.html")
    with writing(page):
        write_page(page, collected.found, comparisons, skipped)
    count = len(collected.found)
    print(printable(f"page: {page}, {count:,} result{'' if count == 1 else 's'}"))
