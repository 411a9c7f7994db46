"""What a user may set of a plug-in: one frozen dataclass for each plug-in that has options, a field for each.

The types of a field say what it takes: ``int``, ``float``, ``str``, ``bool``, words as a ``Literal``, any of these with
``|``; None as a default stands for what is not set. From the same class ``--set`` is checked, the options are listed
where they are shown, and ``tune`` learns what is worth trying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import inf
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from plugins.registry import nearest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a plug-in that has none."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What ``tune`` tries for an option, beside its default, where the user leaves the search open.

    ``of_lanes`` tells the value for a number of lanes, 0 for none. Where the user has set the option, or one of
    ``unless``, it is left alone.
    """

    of_lanes: Callable[[int], int]
    unless: tuple[str, ...] = ()


class PluginOption(NamedTuple):
    """An option as it is shown; ``type`` says what it takes, ``default`` is None where that is not one value."""

    name: str
    type: str
    default: Any
    help: str

    def __str__(self) -> str:
        default = f"{self.default:g}" if isinstance(self.default, float) else self.default
        about = [self.help, "" if default is None else f"default {default}"]
        return f"{self.name} ({'; '.join(filter(None, about))})"


def option(
    default: Any,
    text: str,
    *,
    least: float = -inf,
    most: float = inf,
    unit: str = "",
    tune: Tuned | None = None,
    is_shortcut: bool = False,
) -> Any:
    """A field with a line of help: a number lies between ``least`` and ``most`` and is one of ``unit``.

    One that ``is_shortcut`` buys speed with what comes out: whoever takes it must be told so.
    """
    more = {"unit": unit, "tune": tune, "is_shortcut": is_shortcut}
    return field(default=default, metadata={"help": text, "bounds": (least, most), **more})


def describe(options: type[Any]) -> list[PluginOption]:
    """The options of a class, in its order."""
    types = get_type_hints(options)
    return [
        PluginOption(each.name, _expected(types[each.name], each.metadata), each.default, each.metadata.get("help", ""))
        for each in fields(options)
    ]


def tuned(options: type[Any]) -> dict[str, Tuned]:
    """Those options of a class that ``tune`` searches by itself."""
    return {each.name: found for each in fields(options) if (found := each.metadata.get("tune"))}


def shortcuts(chosen: Any) -> tuple[str, ...]:
    """The names of those shortcuts that an object of options takes."""
    return tuple(
        each.name for each in fields(chosen) if each.metadata.get("is_shortcut") and getattr(chosen, each.name)
    )


def read(plugin: str, options: type[T], given: Mapping[str, Any]) -> T:
    """The options of ``plugin`` as the user has set them; words may be in capitals, numbers in quotes.

    Raises ``ValueError`` for one that it does not have, and for a value that is none.
    """
    known = {each.name: each for each in describe(options)}
    types = get_type_hints(options)
    values = {}
    for each in fields(options):  # type: ignore[arg-type]
        if each.name in given:
            taken = (_taken(kind, given[each.name], each.metadata) for kind in _kinds(types[each.name]))
            values[each.name] = next((value for value in taken if value is not None), None)
    for name, value in given.items():
        if name not in known:
            listed = f"{nearest(name, known)}known: {', '.join(map(str, known.values()))}" if known else "it has none"
            raise ValueError(f"{plugin} has no option '{name}'; {listed}")
        if values[name] is None:
            raise ValueError(f"{plugin} option {name}: got {value!r}, expected {known[name].type}")
    return options(**values)


def _kinds(hint: Any) -> list[Any]:
    """What a type allows, apart from None."""
    alternatives = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [each for each in alternatives if each is not NoneType]


def _taken(kind: Any, value: object, metadata: Mapping[str, Any]) -> Any:
    """``value`` as one of a kind; None where it is none."""
    text = str(value)
    if get_origin(kind) is Literal or kind is bool:
        words = (True, False) if kind is bool else get_args(kind)
        return {str(word).lower(): word for word in words}.get(text.lower())
    if kind not in (int, float):
        return value if type(value) is kind else None
    try:
        number = kind(text)
    except ValueError:
        return None
    least, most = metadata.get("bounds", (-inf, inf))
    return number if least <= number <= most and abs(number) != inf else None


def _expected(hint: Any, metadata: Mapping[str, Any]) -> str:
    """What an option takes, in words."""
    least, most = metadata.get("bounds", (-inf, inf))
    bounds = (f" from {least}" if least > -inf else "") + (f" to {most}" if most < inf else "")
    unit = metadata.get("unit")
    words = {
        bool: "true or false",
        str: "a word",
        int: f"{unit or 'a whole number'}{bounds}",
        float: f"{unit or 'a number'}{bounds}",
    }
    return " or ".join(words[kind] if kind in words else " or ".join(get_args(kind)) for kind in _kinds(hint))
