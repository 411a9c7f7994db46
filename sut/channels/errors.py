"""How a channel fails, each in one line and in bounded time."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from sut.errors import RunError

PASSWORD = "SUT_CHANNEL_PASSWORD"
"""The variable with the broker's password. No settings hold one, so no result, message or command line can show it."""


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


def split_password(url: str) -> tuple[str, str | None]:
    """A URL without its password, be it before the host or a ``password=`` (``sasl.password=``) behind it, and that.

    >>> split_password("redis://me:secret@host:6379/0")
    ('redis://me@host:6379/0', 'secret')

    Raises ``ValueError`` for what is no URL, or has another password; the message has nothing of it but its scheme.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"the channel's URL ({url.partition(':')[0]}:...) cannot be read") from None
    user, at, host = parts.netloc.rpartition("@")
    name, colon, secret = user.partition(":")
    words = parts.query.split("&")
    asked = [word for word in words if word.startswith(("password=", "sasl.password="))]
    if others := [word.partition("=")[0] for word in words if "password=" in word and word not in asked]:
        raise ValueError(f"the channel's URL ({parts.scheme}:...) has {others[0]}, for which there is no other place")
    if not colon and not asked:
        return url, None
    query = "&".join(word for word in words if word not in asked)
    clean = f"{parts.scheme}://{name}{at if name else ''}{host}{parts.path}{'?' if query else ''}{query}"
    return clean, unquote(secret if colon else asked[-1].partition("=")[2])


def password() -> str | None:
    """The broker's password, where the user has set one."""
    return os.environ.get(PASSWORD) or None


def redacted(text: str) -> str:
    """``text`` without the password, should somebody else's message have it."""
    secret = password()
    return text.replace(secret, "***") if secret else text
