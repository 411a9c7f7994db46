"""Rows on trays: what is taken as a whole lies together, no row is two samples', and none is lost."""

from __future__ import annotations

import random

import pytest

from preprocess.base import Geometry
from sut.pipeline.trays import Filled, Trays

NOWHERE = Geometry(0, 0, 1, 1, 0, 0)


def filled(row: int, number: int = 0) -> Filled:
    return Filled(100 + number, number, number, row, NOWHERE)


def reserved(trays: Trays, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count and (rows := trays.reserve(count - len(found))):
        found += rows
    return found


def rows_of(samples: list[Filled]) -> list[int]:
    return [sample.row for sample in samples]


def test_rows_are_reserved_one_after_another_and_never_over_the_edge_of_a_tray() -> None:
    trays = Trays(2, 4, fill_up=True)

    found = [trays.reserve(3), trays.reserve(3), trays.reserve(3), trays.reserve(3), trays.reserve(3)]

    assert [len(rows) for rows in found] == [3, 1, 3, 1, 0]
    assert sorted(row for rows in found for row in rows) == list(range(8))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_a_tray_is_taken_when_its_last_row_is_ready_in_the_order_of_its_rows(order: tuple[int, ...]) -> None:
    trays = Trays(2, 4, fill_up=True)
    trays.announce(9)
    rows = reserved(trays, 4)

    for at in order[:-1]:
        trays.put(filled(rows[at]))
        assert trays.take() == []
    trays.put(filled(rows[order[-1]]))

    assert trays.waiting == 4
    assert rows_of(trays.take()) == rows


def test_another_tray_may_be_whole_before_the_oldest() -> None:
    trays = Trays(2, 2, fill_up=True)
    trays.announce(5)
    rows = reserved(trays, 4)

    for row in rows[1:]:
        trays.put(filled(row))

    assert rows_of(trays.take()) == rows[2:]
    assert trays.take() == []


def test_what_is_left_goes_as_it_is_once_nothing_comes_any_more() -> None:
    trays = Trays(3, 4, fill_up=True)
    trays.announce(5)
    rows = reserved(trays, 5)

    for row in rows:
        trays.put(filled(row))

    assert [rows_of(trays.take()), rows_of(trays.take())] == [rows[:4], rows[4:]]
    assert trays.is_empty


def test_the_next_query_begins_a_tray_of_its_own() -> None:
    trays = Trays(3, 4, fill_up=True)
    for _ in range(5):  # as many queries would not fit if trays were lost
        trays.announce(2)
        rows = reserved(trays, 2)
        for row in rows:
            trays.put(filled(row))
        assert rows[0] % 4 == 0
        assert rows_of(trays.take()) == rows
        trays.done(rows)


def test_what_failed_leaves_a_gap_and_holds_up_nobody() -> None:
    trays = Trays(2, 4, fill_up=True)
    trays.announce(4)
    rows = reserved(trays, 4)

    trays.put(filled(rows[0]))
    trays.put(filled(rows[3]))
    trays.drop(rows[1])
    trays.drop(rows[2])

    assert rows_of(trays.take()) == [rows[0], rows[3]]
    assert trays.is_empty


def test_a_tray_of_failures_alone_is_empty_again() -> None:
    trays = Trays(1, 2, fill_up=True)
    trays.announce(4)
    for row in reserved(trays, 2):
        trays.drop(row)

    assert len(reserved(trays, 2)) == 2
    assert trays.take() == []


def test_what_will_not_come_is_not_waited_for() -> None:
    trays = Trays(2, 4, fill_up=True)
    trays.announce(3)
    [row] = trays.reserve()
    trays.put(filled(row))
    assert trays.take() == []

    trays.cancel(2)

    assert rows_of(trays.take()) == [row]


def test_where_trays_do_not_matter_what_is_ready_is_taken_the_oldest_first() -> None:
    trays = Trays(2, 2, fill_up=False)
    trays.announce(4)
    rows = reserved(trays, 4)
    for at in (3, 0, 1):
        trays.put(filled(rows[at]))

    assert rows_of(trays.take()) == sorted([rows[0], rows[3]])
    assert rows_of(trays.take()) == [rows[1]]
    assert trays.take() == []
    assert not trays.is_empty


@pytest.mark.parametrize("fill_up", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_each_sample_comes_once_and_no_row_is_two_samples(seed: int, fill_up: bool) -> None:
    chosen = random.Random(seed)
    batch = chosen.randint(1, 5)
    trays = Trays(chosen.randint(2, 4), batch, fill_up)
    count = 60
    trays.announce(count)
    waiting, at_work, inferring = list(range(count)), {}, []
    answered: list[int] = []
    failed = 0
    while waiting or at_work or inferring or not trays.is_empty:
        free = trays.reserve(chosen.randint(1, 3)) if waiting and chosen.random() < 0.6 else range(0)
        for row in free:
            assert row not in at_work and row not in {row for each in inferring for row in rows_of(each)}
            if waiting:
                at_work[row] = waiting.pop(0)
            else:
                trays.announce(1)
                trays.drop(row)
        if at_work and chosen.random() < 0.7:
            row = chosen.choice([*at_work])
            number = at_work.pop(row)
            if chosen.random() < 0.1:
                trays.drop(row)
                failed += 1
            else:
                trays.put(filled(row, number))
        if chosen.random() < 0.5 and (taken := trays.take()):
            assert len(taken) <= batch and rows_of(taken) == sorted(rows_of(taken))
            inferring.append(taken)
        if inferring and chosen.random() < 0.5:
            taken = inferring.pop(chosen.randrange(len(inferring)))
            trays.done(rows_of(taken))
            answered += [sample.number for sample in taken]

    assert len(answered) == len(set(answered)) == count - failed
    assert len(reserved(trays, trays.capacity + 1)) == trays.capacity
