"""Signals that are noted, and raised only where that was asked for."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from sut.process.signals import ENDING, note_all, noted, undisturbed


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each of the signals is a KeyboardInterrupt, whatever the test runner was started with."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {which: signal.signal(which, signal.default_int_handler) for which in ENDING}
    yield
    for which, handler in before.items():
        signal.signal(which, handler)


@pytest.mark.parametrize("which", ENDING)
def test_a_signal_is_noted_and_afterwards_raised_again(which: signal.Signals) -> None:
    with noted() as ending:
        assert not ending.came
        signal.raise_signal(which)
        signal.raise_signal(which)
        assert ending.came

    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(which)


def test_it_is_raised_once_where_that_is_wanted() -> None:
    with noted() as ending:
        with pytest.raises(KeyboardInterrupt), ending.raising():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_one_that_came_before_is_raised_there_too() -> None:
    with noted() as ending:
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt), ending.raising():
            pytest.fail("went on")


def test_one_that_ended_a_run_is_not_raised_again_on_the_way_out() -> None:
    with note_all().raising():
        with noted() as ending:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    assert ending.came


def test_where_an_exception_is_lost_the_next_signal_is_raised() -> None:
    class Deaf:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), note_all().raising():
        Deaf()
        signal.raise_signal(signal.SIGTERM)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with noted() as ending:
        signal.raise_signal(signal.SIGHUP)
        assert not ending.came


def test_cleaning_up_is_not_disturbed() -> None:
    cleaned = []
    with noted() as ending:
        with undisturbed():
            for which in ENDING:
                signal.raise_signal(which)
            assert not ending.came
            cleaned.append(True)

        assert cleaned and ending.came


def test_a_signal_that_came_while_cleaning_up_is_raised_afterwards() -> None:
    cleaned = []
    with pytest.raises(KeyboardInterrupt), undisturbed():
        signal.raise_signal(signal.SIGINT)
        cleaned.append(True)

    assert cleaned


def test_a_thread_hears_no_signals_and_may_clean_up() -> None:
    failed: list[BaseException] = []

    def clean_up() -> None:
        try:
            with undisturbed():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=clean_up)
    thread.start()
    thread.join()

    assert failed == []
