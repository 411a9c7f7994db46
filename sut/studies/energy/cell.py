"""One size of pictures with one preprocessor, as a study of energy measures it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sut.pipeline.assembly import Assembly
from sut.studies.driving.driven import Driven, Ready


@dataclass(slots=True)
class Cell:
    """A size of pictures and a preprocessor; ``reason`` why it has no rounds, or no more of them."""

    pictures: str
    preprocess: str
    parts: Assembly | None = None
    ready: Ready | None = None
    rounds: list[Driven] = field(default_factory=list)
    reason: str | None = None
    failed: bool = False
    """Whether that is since something went wrong, and not for want of what it needs."""
