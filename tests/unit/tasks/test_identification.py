"""Identities: which are right, and one line for what is no answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from backends.base import TensorSpec
from sut.models.registry import MODELS
from sut.tasks.detection.truth import BoxTruth
from sut.tasks.identification import Identification, IdentityTruth
from tests.identities import pack

TRUTH = IdentityTruth(
    sizes=((200, 100), (50, 80), (64, 64)),
    boxes=(((0, 0, 100, 50), (100, 50, 100, 50)), (), ((8, 8, 32, 32),)),
    labels=((281, 309), (), (970,)),
)
LEFT, RIGHT = (0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)
"""The boxes of sample 0, as an answer has them."""
THIRD = (0.125, 0.125, 0.625, 0.625)

Found = tuple[tuple[float, ...], float, int]
"""A box, its score, its label."""


def answer(index: int, *found: Found) -> bytes:
    boxes, scores, labels = zip(*found, strict=True) if found else ((), (), ())
    return pack(index, boxes, scores, labels)


def answers(*of_the_first: Found) -> dict[int, bytes]:
    """Right ones to the other two samples, the last one first."""
    return {2: answer(2, (THIRD, 1, 970)), 0: answer(0, *of_the_first), 1: b""}


def right_and_answered(given: dict[int, bytes], whole: bool = True) -> tuple[int, int]:
    score = Identification.score(given, TRUTH, whole)
    said = dict(part.split("=") for part in score.text.split(", "))
    assert (score.name, int(said["total"])) == ("identities", score.count)
    assert score.value == pytest.approx(int(said["right"]) / max(score.count, int(said["boxes"]), 1))
    return int(said["right"]), int(said["boxes"])


def test_all_right() -> None:
    score = Identification.score(answers((LEFT, 1, 281), (RIGHT, 1, 309)), TRUTH)

    assert (score.name, score.value, score.count) == ("identities", 1.0, 3)
    assert score.text == "identities=100.000%, right=3, boxes=3, total=3"


@pytest.mark.parametrize(
    ("found", "right", "boxes"),
    [
        ([], 1, 1),  # nothing found where two are
        ([(LEFT, 1, 281)], 2, 2),
        ([(LEFT, 1, 309), (RIGHT, 1, 281)], 1, 3),  # each has the other's label
        ([(LEFT, 1, -1), (RIGHT, 1, 309)], 2, 3),
        ([(LEFT, 1, 281), (RIGHT, 1, 309), ((0, 0.5, 0.5, 1), 1, 281)], 3, 4),  # one where nothing is
        ([(LEFT, 1, 281), (LEFT, 1, 281), (RIGHT, 1, 309), (RIGHT, 1, 309)], 3, 5),  # all twice
        ([((0, 0, 0.5, 1), 1, 281), (RIGHT, 1, 309)], 3, 3),  # an IoU of a half
        ([((0, 0, 0.5, 1), 1, 281), (RIGHT, 1, 281)], 2, 3),
        ([((0, 0, 0.52, 1), 1, 281), (RIGHT, 1, 309)], 2, 3),  # less than a half
        ([((0.5, 0.5, 0, 0), 1, 281), (RIGHT, 1, 309)], 2, 3),  # inside out: no area
        ([((0, 0, 0, 0), 1, 281), (RIGHT, 1, 309)], 2, 3),
    ],
)
def test_what_is_right_and_what_it_is_a_share_of(found: list[Found], right: int, boxes: int) -> None:
    assert right_and_answered(answers(*found)) == (right, boxes)


def test_the_box_that_overlaps_most_is_the_one_whose_label_counts_in_any_order() -> None:
    near = (0, 0, 0.5, 0.45)
    for rows in permutations([(LEFT, 0.1, 281), (near, 1, 7), (RIGHT, 1, 309)]):
        assert right_and_answered(answers(*rows)) == (3, 4)
    for rows in permutations([(LEFT, 1, 7), (near, 0.1, 281), (RIGHT, 1, 309)]):
        assert right_and_answered(answers(*rows)) == (2, 4)


def test_of_boxes_at_one_place_the_better_score_counts_then_the_lower_label_in_any_order() -> None:
    for rows in permutations([(LEFT, 0.9, 281), (LEFT, 0.8, 7)]):
        assert right_and_answered(answers(*rows)) == (2, 3)
    for rows in permutations([(LEFT, 0.9, 281), (LEFT, 0.9, 7)]):
        assert right_and_answered(answers(*rows)) == (1, 3)


def test_a_box_counts_for_one_of_two_true_ones_that_it_overlaps() -> None:
    truth = IdentityTruth(((10, 10),), (((0, 0, 10, 6), (0, 0, 10, 8)),), ((5, 5),))

    score = Identification.score({0: answer(0, ((0, 0, 0.8, 1), 1, 5))}, truth)

    assert score.text == "identities=50.000%, right=1, boxes=1, total=2"


def test_an_extra_box_in_a_picture_with_nothing_costs() -> None:
    given = answers((LEFT, 1, 281), (RIGHT, 1, 309)) | {1: answer(1, (LEFT, 1, 281))}

    assert Identification.score(given, TRUTH).value == 0.75


def test_only_the_samples_that_were_asked_count_where_not_the_whole_was() -> None:
    assert right_and_answered({0: answer(0, (LEFT, 1, 281))}, whole=False) == (1, 1)
    assert Identification.score({1: b""}, TRUTH, whole=False).value == 1.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({3: b""}, "an answer for sample 3; the data set has 0 to 2"),
        ({-1: b""}, "an answer for sample -1"),
        ({0: b"\0" * 27}, "the answer of sample 0 has 27 bytes; expected 28 for each box"),
        ({0: answer(0, (LEFT, 1, 281)) + b"\0" * 4}, "the answer of sample 0 has 32 bytes"),
        ({0: answer(0, (LEFT, float("nan"), 281))}, "a box of sample 0 is .*nan.*; expected 7 finite values"),
        ({0: answer(0, ((0, 0, float("inf"), 1), 1, 281))}, "a box of sample 0 is .*inf"),
        ({0: answer(0, (LEFT, 1, 281)), 2: answer(1, (THIRD, 1, 970))}, "sample 2 says that it is sample 1's"),
        ({2: pack(2, [THIRD], [1], [970.5])}, "a box of sample 2 has the label 970.5; expected a whole number"),
    ],
)
def test_what_is_no_answer_is_said(given: dict[int, bytes], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Identification.score(answers((LEFT, 1, 281)) | given, TRUTH)


def test_a_sample_without_an_answer_is_missed() -> None:
    with pytest.raises(ValueError, match="1 of 3 samples have no answer: 1"):
        Identification.score({0: b"", 2: b""}, TRUTH)


@pytest.mark.parametrize(
    "truth", [None, np.zeros(3, np.int32), BoxTruth(Path(), (), (), (), ())], ids=["none", "labels", "boxes"]
)
def test_another_tasks_truth_is_refused(truth: object) -> None:
    for refused in (lambda: Identification.score({}, truth), lambda: Identification.check_truth(SPEC, truth, [])):
        with pytest.raises(ValueError, match="it has no identities to score against, but another task's truth"):
            refused()


SPEC = replace(MODELS["planted-photos"], task="identification")


def test_a_truth_with_nothing_to_find_is_refused_and_one_with_anything_is_not() -> None:
    Identification.check_truth(SPEC, TRUTH, ["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(ValueError, match="nothing is to be found in any picture"):
        Identification.check_truth(SPEC, IdentityTruth(((1, 1),), ((),), ((),)), ["a.jpg"])


def test_one_model_alone_does_not_identify() -> None:
    outputs = [TensorSpec("output0", "float32", (None, 5, 1600))]
    assert not Identification.recognises(outputs)
    for refused in (
        lambda: Identification.of(SPEC, outputs),
        lambda: Identification().decode({"output0": np.zeros((1, 5, 1600))}, [0], [], 1),
    ):
        with pytest.raises(ValueError, match=r"takes a detector and a second model .*: run it as a pipeline of both"):
            refused()
