"""What may not be in a URL: a config is shown, kept in results and told to other processes."""

from __future__ import annotations

from urllib.parse import unquote

PASSWORD = "SUT_CHANNEL_PASSWORD"
"""The variable with a broker's password."""
_NAMES = ("password", "passwd", "passphrase", "secret", "token", "credential", ".pem")
"""What is in the names of options that hold something secret."""


def shows_secret(url: str) -> bool:
    """Whether a URL has a password before its host, or an option that holds a secret, however it is spelt.

    All before the last ``@`` may be a password, with or without ``//``, and with a ``?`` in it: an option's own ``@``
    is written ``%40``.

    >>> [shows_secret(url) for url in ("redis://me@host", "redis://me:word@host", "redis://host?pass%77ord=word")]
    [False, True, True]
    """
    user = url.partition(":")[2].lstrip("/").rpartition("@")[0]
    options = [unquote(word.partition("=")[0]).lower() for word in url.partition("?")[2].split("&")]
    return ":" in user or any(name in option for option in options for name in _NAMES)
