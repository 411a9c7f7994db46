"""What a study brings to a page: its findings in words, its curves and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sut.results.page.tables import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with what it shows in words; ``legend`` has CSS class and name of each series or part."""

    caption: str
    svg: Markup
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """One study: its title, the sentences that it comes to, the first of which leads, and what shows them."""

    title: str
    sentences: Sequence[str]
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
