"""How small libjpeg may decode a picture that is then shrunk anyway, and where its pixels lie in the whole one."""

from __future__ import annotations

from dataclasses import replace

from preprocess.base import Geometry
from preprocess.oracle import Fit

FACTORS = (8, 4, 2)
"""By how much libjpeg shrinks while it decodes, most first. What lies between them it has no fast code for."""


def shrunk(where: Fit) -> tuple[Fit, Geometry]:
    """``where`` in the smallest picture that can stand for the whole, and the map from the input to the whole.

    Its box is at least as large as what it is resized to, on both axes. It has whole pixels of the smaller picture, so
    it may lie half of one beside the recipe's: the map tells where it lies.
    """
    factor = _factor(where)
    left, top = _smaller(where.box_left, factor), _smaller(where.box_top, factor)
    smaller = replace(
        where,
        width=-(-where.width // factor),
        height=-(-where.height // factor),
        box_left=left,
        box_top=top,
        box_width=_smaller(where.box_left + where.box_width, factor) - left,
        box_height=_smaller(where.box_top + where.box_height, factor) - top,
    )
    of = smaller.geometry
    scales, corner = (of.scale_x / factor, of.scale_y / factor), (of.left * factor, of.top * factor)
    return smaller, Geometry(where.width, where.height, *scales, *corner)


def _factor(where: Fit) -> int:
    most = min(where.box_width // where.resized_width, where.box_height // where.resized_height)
    return next((factor for factor in FACTORS if factor <= most), 1)


def _smaller(edge: int, factor: int) -> int:
    """The nearest edge of the smaller picture. Halves always go up: else a box could lose a pixel too many."""
    return (edge + factor // 2) // factor
