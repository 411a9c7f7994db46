"""When two looks at a picture are alike, and how far two detectors agree."""

from __future__ import annotations

import numpy as np
import pytest

from sut.tasks.detection.likeness import BoxAgreement, BoxLook, BoxTally

Box = tuple[float, float, float, float, float, int]
"""ymin, xmin, ymax, xmax, score, category."""

EDGE: Box = (0.0, 0.2, 0.0, 0.6, 0.9, 17)
"""What is left of a box that lay above its picture."""
CAT: Box = (0.1, 0.1, 0.5, 0.5, 0.9, 17)
DOG: Box = (0.4, 0.6, 0.9, 0.9, 0.6, 18)


def answer(*boxes: Box, sample: int = 0) -> bytes:
    return np.array([(sample, *box) for box in boxes], "<f4").reshape(-1, 7).tobytes()


def look(*boxes: Box) -> BoxLook:
    return BoxLook(np.frombuffer(answer(*boxes), "<f4").reshape(-1, 7))


def moved(box: Box, by: float = 0.0, score: float = 0.0, category: int = 0) -> Box:
    top, left, bottom, right, old, kind = box
    return top + by, left + by, bottom + by, right + by, old + score, kind + category


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        ((CAT, DOG), (DOG, CAT), None),
        ((CAT,), (moved(CAT, by=0.02, score=-0.03),), None),
        ((CAT, DOG), (CAT,), "a box of category 18 that scores 0.60 is gone"),
        ((CAT,), (CAT, DOG), "a box of category 18 that scores 0.60 is new"),
        ((CAT,), (moved(CAT, category=1),), "a box of category 17 that scores 0.90 is gone"),
        ((CAT,), (moved(CAT, by=0.2),), "a box of category 17 that scores 0.90 is gone"),
        ((DOG,), (moved(DOG, score=0.2),), "a box of category 18 that scores 0.60 is gone: one there scores 0.80"),
        ((), (), None),
        ((CAT, EDGE), (CAT, EDGE), None),
        ((EDGE,), (moved(EDGE, by=1e-6), CAT), "a box of category 17 that scores 0.90 is new"),
        # What scores less than is worth showing comes and goes.
        ((CAT, moved(DOG, score=-0.4)), (CAT,), None),
    ],
)
def test_boxes_have_partners_or_not(first: tuple[Box, ...], second: tuple[Box, ...], how: str | None) -> None:
    assert look(*first).other_than(look(*second)) == how
    assert look(*first).unlike(look(*second)) == how


def test_a_box_is_shown_from_a_quarter_on() -> None:
    assert look((*DOG[:4], 0.25, 18)).gist is None
    assert look((*DOG[:4], 0.2499, 18)).gist == "got no box that scores 0.25 or more"


def test_a_box_that_is_hardly_worth_showing_may_be_gone_by_rounding() -> None:
    hardly = moved(DOG, score=-0.3)

    assert look(CAT, hardly).other_than(look(CAT)) == "a box of category 18 that scores 0.30 is gone"
    assert look(CAT, hardly).near_tie(look(CAT)) and look(CAT).near_tie(look(CAT, hardly))
    assert look(CAT, hardly).unlike(look(CAT)) is None
    assert not look(CAT, hardly).near_tie(look(hardly))


def test_how_far_the_scores_are_apart() -> None:
    assert look(CAT, DOG).apart(look(DOG, moved(CAT, score=-0.04))) == pytest.approx(0.04)
    assert look(CAT).apart(look()) == 0
    assert look(CAT).unlike(look(moved(CAT, score=-0.06))) == "scores that differ by 6 % of their range"


def test_no_box_in_any_picture_is_told() -> None:
    assert look(CAT).gist is None
    assert look().gist == look(moved(DOG, score=-0.4)).gist == "got no box that scores 0.25 or more"


# Agreement


def agreement(reference: list[bytes], reduced: list[bytes]) -> BoxAgreement:
    def objects(answers: list[bytes]) -> np.ndarray:
        found = np.empty(len(answers), object)
        found[:] = answers
        return found

    tally = BoxTally()
    for at in range(len(reference)):  # a batch each: the index in an answer is that in its batch
        tally.add(objects(reference[at : at + 1]), objects(reduced[at : at + 1]))
    return tally.agreement(f"{len(reference)} pictures")


def test_the_same_boxes_agree_entirely() -> None:
    weak = moved(DOG, by=-0.3, score=-0.5)

    got = agreement([answer(CAT, DOG), answer(DOG, weak), answer()], [answer(CAT, DOG), answer(DOG, weak), answer()])

    assert (got.kind, got.low, got.high, got.count, got.boxes) == ("boxes", None, None, 3, 3)
    assert got.value == pytest.approx(1.0, abs=1e-9)
    assert got.words == (
        "mAP 100.0 % against the 3 boxes that fp32 shows (score 0.25 or more) on 3 pictures; no interval"
    )


@pytest.mark.parametrize(
    ("other", "low", "high"),
    [
        (answer(CAT), 0.49, 0.51),  # one category of two
        (answer(CAT, moved(DOG, category=1)), 0.49, 0.51),
        (answer(CAT, moved(DOG, by=0.01)), 0.8, 0.99),
        (answer(CAT, moved(DOG, score=-0.4)), 1.0, 1.0),  # it is still the best of its category
        (answer(), 0.0, 0.0),
    ],
    ids=["gone", "another category", "moved", "unsure", "nothing"],
)
def test_what_is_lost_shows(other: bytes, low: float, high: float) -> None:
    assert low - 1e-9 <= agreement([answer(CAT, DOG)], [other]).value <= high


@pytest.mark.parametrize(
    ("other", "value", "words"),
    [(answer(), 1.0, "and neither does it"), (answer(CAT), 0.0, "and it does")],
    ids=["nothing", "a box"],
)
def test_where_fp32_shows_nothing_that_is_told(other: bytes, value: float, words: str) -> None:
    got = agreement([answer(moved(DOG, score=-0.4))], [other])

    assert got.value == value
    assert got.words == f"fp32 shows no box (none scores 0.25 or more) on 1 pictures, {words}"
