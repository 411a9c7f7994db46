"""Names as the file system has them, any bytes, in what people and other programs read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

Say = Callable[[str], None]
"""Tells the user what is being done, in one line."""
Progress = Callable[[int, int], None]
"""Called with how many steps (samples, crops) are done, and how many there will be."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 80
_MOST_NAME_BYTES = 200
"""Of a name that is a folder's too, for which Linux takes 255."""


def printable(text: str) -> str:
    """``text`` on one line that a terminal shows as it is: other characters are escaped, and so are bytes of a name
    that are no UTF-8.

    >>> print(printable("caf\\udce9 \\x1b[2J\\n"))
    caf\\xe9 \\x1b[2J\\n
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def printable_lines(text: str) -> str:
    """``printable`` for each line of a text, such as a traceback."""
    return "\n".join(map(printable, text.split("\n")))


def checked_name(text: str) -> str:
    """A name that is a folder's too, of any script, its letters composed. Raises ``ValueError`` for what is none."""
    found = unicodedata.normalize("NFC", text)
    if not found[:1].isalnum() or not all(map(_is_in_names, found)):
        raise ValueError(f"got '{printable(text)}', expected a name")
    return found


def as_name(stem: str) -> str:
    """A file's stem as ``checked_name`` takes it.

    >>> as_name("my model (2)"), as_name("..."), as_name("Ko\u0308ln")
    ('my-model-2', 'model', 'Köln')
    """
    kept = "".join(each if _is_in_names(each) else " " for each in unicodedata.normalize("NFC", stem))
    whole = "-".join(kept.split()).lstrip("-.+_").encode()[:_MOST_NAME_BYTES].decode(errors="ignore")
    return whole.strip("-.+_") or "model"


def _is_in_names(character: str) -> bool:
    """Letters, the marks that some scripts write them with, digits, and what is no punctuation to a file system."""
    return character.isalnum() or character in "_.+-" or unicodedata.category(character)[0] == "M"


def encodable(value: Any) -> Any:
    """JSON data whose texts are all UTF-8, names with other bytes as ``printable`` shows them: no strict reader fails.

    >>> encodable({"output": "caf\\udce9", "count": [1]})
    {'output': 'caf\\\\xe9', 'count': [1]}
    """
    if isinstance(value, str):
        return _SURROGATE.sub(lambda match: _escaped(match[0]), value)
    if isinstance(value, dict):
        return {encodable(key): encodable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable(each) for each in value]
    return value


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(42), duration(150), duration(300), duration(90000)
    ('42 s', '2.5 min', '5 min', '25 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    number, unit = (seconds / 60, "min") if seconds < 6000 else (seconds / 3600, "h")
    return f"{number:.1f} {unit}".replace(".0 ", " ")


def share_in_percent(share: float) -> str:
    """A share of labels: rounded to 0.1, but never up to what it is not, nor down: 99.96 % is not 100 %.

    >>> share_in_percent(0.9996), share_in_percent(1.0), share_in_percent(0.985)
    ('99.9', '100.0', '98.5')
    """
    rounded = round(100 * share, 1)
    return f"{min(rounded, 99.9) if share < 1 else rounded:.1f}"


def shortened(text: str) -> str:
    """The start of a text that may be endless, for a message."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return character.encode("unicode_escape").decode()
    if 0xDC80 <= code <= 0xDCFF:  # how Python writes a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
