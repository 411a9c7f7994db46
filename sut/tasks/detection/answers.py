"""Answers that are boxes, as MLPerf's detectors log them, and what is wrong with some."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

ANSWER_WIDTH = 7
"""Values of a box: its sample's index, ymin, xmin, ymax, xmax as shares of the picture, score, category."""
VALUE = np.dtype("<f4")
_BOX_BYTES = ANSWER_WIDTH * VALUE.itemsize


def rows_of(answers: Mapping[int, bytes]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """All boxes, (n, 7), in the order of their answers, and which sample's each is: (n,).

    Raises ``ValueError`` for what MLPerf's script takes, or stumbles over, and no model means: bytes that are no whole
    boxes, values that are not finite, and a box that says that it is another sample's.
    """
    for index, answer in answers.items():
        if len(answer) % _BOX_BYTES:
            raise ValueError(
                f"the answer of sample {index} has {len(answer)} bytes; expected {_BOX_BYTES} for each box, as "
                f"{ANSWER_WIDTH} float32"
            )
    rows = np.frombuffer(b"".join(answers.values()), VALUE).reshape(-1, ANSWER_WIDTH)
    counts = [len(answer) // _BOX_BYTES for answer in answers.values()]
    of = np.repeat(np.fromiter(answers, np.intp, len(answers)), counts)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        at = int(finite.argmin())
        values = ", ".join(f"{value:g}" for value in rows[at])
        raise ValueError(f"a box of sample {of[at]} is {values}; expected {ANSWER_WIDTH} finite values")
    own = rows[:, 0] == of
    if not own.all():
        at = int(own.argmin())
        raise ValueError(
            f"a box of sample {of[at]} says that it is sample {rows[at, 0]:.9g}'s; expected the sample's own index"
        )
    return rows, of
