"""How a channel fails, each in one line and in bounded time."""

from __future__ import annotations

import os

from sut.config.secrets import PASSWORD
from sut.errors import RunError


class ChannelError(RunError):
    """A channel failed, and with it the run."""


class ChannelFull(ChannelError):
    """Nothing was taken out of a full channel within the time that a sender had."""


class ChannelClosed(ChannelError):
    """The other end is gone: closed, or its process has ended."""


class BrokerGone(ChannelError):
    """The broker was there and does not answer now, or is another one since."""


class BrokerFull(ChannelError):
    """The broker takes no more: its memory is full."""


class MessageLost(ChannelError):
    """A message that was announced did not come in time."""


def password() -> str | None:
    """The broker's password, where the user has set one."""
    return os.environ.get(PASSWORD) or None


def redacted(text: str) -> str:
    """``text`` without the password, should somebody else's message have it."""
    secret = password()
    return text.replace(secret, "***") if secret else text
