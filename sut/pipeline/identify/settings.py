"""The channels of one run: what they are opened with, by whoever opens them, and how they are removed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from sut.channels.base import ChannelSettings
from sut.channels.errors import ChannelError
from sut.channels.registry import clean, settings_of
from sut.config import RunConfig
from sut.errors import InputError, SutError

CROPS, ANSWERS = "crops", "answers"
BATCHES = 4
"""Of crops, that a channel has room for."""
_MOST_ANSWER_BYTES = 4096
PATIENCE_S = 60.0
"""How long a crop may be on its way, and a channel may stay full, before the run fails; longer for a slow model."""


def channels_of(config: RunConfig, run: str, crop_bytes: int = 1) -> tuple[list[ChannelSettings], ChannelSettings]:
    """A channel of crops for each worker, and the one that all answers come through.

    Raises ``InputError`` for a channel that there is not, and a URL with a password.
    """
    room = BATCHES * config.identify_batch
    common = replace(settings_of(config.channel), run=run, lost_after_s=PATIENCE_S)
    crops = [
        replace(common, name=f"{CROPS}-{number}", capacity=room, max_bytes=crop_bytes)
        for number in range(config.identify_workers)
    ]
    return crops, replace(common, name=ANSWERS, capacity=room * len(crops), max_bytes=_MOST_ANSWER_BYTES)


def new_run() -> str:
    """An id that no other run has."""
    return uuid.uuid4().hex[:12]


def check_one_model(config: RunConfig, does: str) -> None:
    """Raise ``InputError`` for two models, where what is asked for ``does`` something with one: ``sut plan times``."""
    if config.identify is not None:
        raise InputError(f"{does} one model; leave --identify out")


@contextmanager
def cleaned_up(config: RunConfig, run: str) -> Iterator[None]:
    """Whatever becomes of the processes of a run, nothing of it is left at its broker, where that can be reached.

    A run that closed its channels itself has left nothing: then this takes a moment.
    """
    try:
        yield
    finally:
        if config.channel not in ("none", "memory", "shared"):  # these end with their processes
            crops, answers = channels_of(config, run)
            remove((*crops, answers))


def remove(channels: Iterable[ChannelSettings]) -> None:
    """Remove what these have left at their broker. One that cannot be removed keeps no other.

    Where the broker does not answer it is given up: each of the others would wait for it as long.
    """
    with suppress(SutError):
        for each in channels:
            with suppress(ChannelError):
                clean(each)
