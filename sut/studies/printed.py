"""What is printed for people, as a file: a picture, or a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>TITLE</title><style>body {{ margin: 2em; color: {foreground}; background: {background} }}
pre {{ white-space: pre-wrap }}</style></head><body><h1>TITLE</h1><pre>{code}</pre></body></html>
"""


def printed_svg(parts: Iterable[RenderableType], title: str) -> str:
    """What 100 columns of a terminal would show, as an SVG file's text, which loads nothing from elsewhere."""
    picture = _recorded(parts).export_svg(title=title)
    return re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)


def printed_page(parts: Iterable[RenderableType], title: str) -> str:
    """The same as an HTML file's text; ``title`` is taken as it is."""
    page = _PAGE.replace("TITLE", title)
    return _recorded(parts).export_html(theme=DEFAULT_TERMINAL_THEME, code_format=page, inline_styles=True)


def _recorded(parts: Iterable[RenderableType]) -> Console:
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    for part in parts:
        console.print(part)
    return console
