"""The rule that tells whether the system clock was set, at its edges."""

from __future__ import annotations

import itertools

import pytest

from sut.process.clock import Pair, Steps, look

S = 1_000_000_000


def pair(difference_ns: int, width_ns: int = 0, at_ns: int = 7 * S) -> Pair:
    """A look at two clocks that are ``difference_ns`` apart, half of its width before and half of it after."""
    return Pair(at_ns, at_ns + width_ns // 2 + difference_ns, at_ns + width_ns)


def see(*differences_ns: int) -> Steps:
    steps = Steps()
    for number, difference_ns in enumerate(differences_ns):
        steps.see([pair(difference_ns, at_ns=number * S)])
    return steps


@pytest.mark.parametrize(
    ("differences_ns", "change_ns", "stepped"),
    [
        ([5 * S], 0, False),
        ([5 * S, 5 * S + 1_000_000], 1_000_000, False),
        ([5 * S, 5 * S + 1_000_001], 1_000_001, True),
        ([5 * S, 5 * S - 1_000_000], -1_000_000, False),
        ([5 * S, 5 * S - 1_000_001], -1_000_001, True),
        ([0, 600_000, -400_001], -1_000_001, True),  # between two that are not the first
        ([0, -600_000, 400_001], 1_000_001, True),
        ([0, -5 * S, 0], -5 * S, True),  # and back
        ([0, -5 * S, -3600 * S], -3600 * S, True),
    ],
)
def test_more_than_a_millisecond_between_any_two_looks_is_a_step(
    differences_ns: list[int], change_ns: int, stepped: bool
) -> None:
    steps = see(*differences_ns)

    assert steps.change_ns == change_ns
    assert steps.see([pair(differences_ns[-1])]) is stepped


@pytest.mark.parametrize(("width_ns", "decides"), [(200_000, True), (200_001, False)])
def test_a_look_that_took_too_long_decides_nothing(width_ns: int, decides: bool) -> None:
    steps = see(0)

    assert steps.see([pair(2_000_000, width_ns)]) is decides
    assert steps.change_ns == (2_000_000 if decides else 0)


def test_without_a_look_that_counts_nothing_is_known() -> None:
    steps = Steps()

    assert steps.see([pair(0, 200_001)]) is False
    assert steps.change_ns is None


def test_the_narrowest_of_several_counts() -> None:
    wide, narrow = pair(2_000_000, 190_000), pair(0, 100)
    for order in itertools.permutations([wide, narrow, wide]):
        steps = see(0)

        assert steps.see(order) is False
        assert steps.change_ns == 0


def test_real_clocks_that_nobody_sets_do_not_step() -> None:
    steps = Steps()
    for _ in range(100):
        pairs = look()
        steps.see(pairs)
        assert all(each.before_ns <= each.after_ns for each in pairs)

    assert steps.see(look()) is False
