"""Channels by name: a file here and a line of plugins/extras.txt, or an entry point ``sut.channels``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from plugins.extras import entries
from plugins.registry import load_class, plugged, suggest
from sut.channels.base import Channel, ChannelSettings, Receiver, Sender
from sut.channels.errors import redacted
from sut.errors import InputError

GROUP = "sut.channels"

CHANNELS = {name: entry.target for name, entry in entries("channel").items()}


def names() -> list[str]:
    """Every channel that can be named, our own first."""
    return [*CHANNELS, *sorted(plugged(GROUP).keys() - CHANNELS.keys())]


def load(name: str) -> type[Channel]:
    """The class of a channel.

    Raises ``ValueError`` for an unknown name, with the nearest right one, and ``ModuleNotFoundError`` for a package
    that it needs, with the command that installs it.
    """
    try:
        loaded: type[Channel] = load_class("channel", name, CHANNELS, GROUP, Channel)
    except ModuleNotFoundError as error:
        entry = entries("channel").get(name)
        needed = " ".join(package.name for package in entry.packages) if entry else str(error.name)
        raise ModuleNotFoundError(f"the channel {name} needs {needed}: pip install {needed}", name=error.name) from None
    return loaded


def settings_of(text: str) -> ChannelSettings:
    """What a channel is opened with that is told in one word: its name, or a broker's URL, whose scheme says which.

    Raises ``InputError`` for an unknown name and for a URL with a password, which the message does not show.
    """
    scheme, is_url, _ = text.partition(":")
    name = _SCHEMES.get(scheme, scheme)
    if name not in names():
        raise InputError(f"unknown channel '{name}'; {suggest(name, ['none', *names()])}, or a broker's URL")
    return ChannelSettings(name, "run", url=text if is_url else "")


_SCHEMES = {"rediss": "redis", "unix": "redis"}


def open_receiver(settings: ChannelSettings) -> Receiver:
    """The end that owns a channel, opened first. Raises as ``load`` and ``Channel.receiver`` do."""
    with _input_errors():
        return load(settings.channel).receiver(settings)


def open_sender(settings: ChannelSettings) -> Sender:
    """An end of an open channel, from the ``address`` of its receiver. Raises as ``load`` and ``Channel.sender`` do."""
    with _input_errors():
        return load(settings.channel).sender(settings)


def clean(settings: ChannelSettings) -> None:
    """Remove what a channel has left at its broker. Raises as ``load`` and ``Channel.clean`` do."""
    with _input_errors():
        load(settings.channel).clean(settings)


@contextmanager
def _input_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # an unknown name, a bad option or URL
        raise InputError(redacted(str(error))) from error
