"""A picture of what is printed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

from rich.console import Console, RenderableType


def printed_svg(parts: Iterable[RenderableType], title: str) -> str:
    """What 100 columns of a terminal would show, as an SVG file's text, which loads nothing from elsewhere."""
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    for part in parts:
        console.print(part)
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)
