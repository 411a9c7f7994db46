"""Two looks at what a task answers that says nothing of likeness itself."""

from __future__ import annotations

import numpy as np

from sut.tasks.likeness import Values


def test_outputs_are_alike_but_for_rounding() -> None:
    draw = np.random.default_rng(1)
    depth = draw.random((2, 1, 40, 50)).astype(np.float32)
    first, second = Values.of({"depth": depth, "of all": depth[0, 0, 0]}, 2)

    assert first.unlike(first) is None
    assert str(first.unlike(second)).startswith("values that differ by ")
    [rounded] = Values.of({"depth": depth[:1] + 1e-4, "of all": depth[0, 0, 0]}, 1)
    assert first.unlike(rounded) is None and first.apart(rounded) < 2e-3


def test_what_is_no_float_is_the_same_or_not() -> None:
    classes = np.zeros((2, 10, 10), np.uint8)
    classes[1, 0, 0] = 200
    first, second = Values.of({"classes": classes}, 2)
    classes[1, :] = 7
    [_, other] = Values.of({"classes": classes}, 2)

    assert first.apart(second) == 0.01 and first.unlike(second) is None
    assert first.unlike(other) == "values that differ by 1e+02 % of their range"


def test_of_a_large_output_a_part_is_kept() -> None:
    [look] = Values.of({"map": np.zeros((1, 3, 1000, 1000), np.float16)}, 1)

    assert 30_000 < look.outputs[0].size <= 2**16
