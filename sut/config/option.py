"""What is said of a setting beside its type and default: on the command line, in the docs, in a config's schema."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field

_UNITS = {"s": "seconds", "ms": "ms"}  # by the ending of a field's name
_PLACES = {"scenario": "in {}", "precision": "in {}", "mode": "in {} mode", "boundary": "at the boundary {}"}


@dataclass(frozen=True, slots=True)
class Only:
    """A setting matters only where another one, ``setting``, has one of these ``values``, and ``why`` not elsewhere.

    With the setting ``unless`` it matters all the same.
    """

    setting: str
    values: tuple[str, ...]
    why: str
    unless: str = ""

    def place(self, *values: str) -> str:
        """Values of the other setting, as a place; without any, all where it matters.

        >>> Only("boundary", ("tensor",), "it is timed").place("jpeg")
        'at the boundary jpeg'
        """
        return _PLACES[self.setting].format(", ".join(values or self.values))


@dataclass(frozen=True, slots=True)
class Option:
    """What is told of a setting, or of an option of the command line that is none.

    ``flag`` is empty where it is the field's name without its unit, and None where the command line has none; ``unit``
    is empty where the field's name tells it, or its type the choices. Where the setting has no effect it is called
    ``told``, ``{}`` being its value, or as its flag; ``idle`` is a value that asks for nothing, as the default does.
    ``takes`` is what the command line reads, where the field's type does not say. ``plugs`` is the kind of plug-in that
    a setting names: the command line tells which there are, the docs where they stand: a new one changes no page.
    """

    help: str
    flag: str | None = ""
    unit: str = ""
    only: Only | None = None
    told: str = ""
    idle: object = None
    takes: Any = None
    plugs: str = ""

    def __call__(self, schema: dict[str, Any]) -> None:
        """Describe the field in the JSON Schema that pydantic makes of its model."""
        place = f"; only {self.only.place()}" if self.only else ""
        schema["description"] = f"{self.help.removesuffix('.')}{place}."


def setting(text: str, default: Any = None, /, **more: Any) -> Any:
    """A pydantic field with an option; ``more`` are what else that has, and pydantic's bounds."""
    own = {name: more.pop(name) for name in Option.__slots__ if name in more}
    return Field(default, json_schema_extra=Option(text, **own), **more)


@cache
def kinds_of(model: type[BaseModel]) -> dict[str, set[Any]]:
    """The types of each field without bounds, those of a union apart."""
    return {name: {hint, *get_args(hint)} for name, hint in get_type_hints(model).items()}


def options_of(model: type[BaseModel]) -> dict[str, Option]:
    """The options of a model by field, with flag, unit, and what the command line takes: text, unless the type says."""
    found = {}
    for name, field in model.model_fields.items():
        if isinstance(option := field.json_schema_extra, Option):
            stem, _, unit = name.rpartition("_")
            unit, stem = (_UNITS[unit], stem) if unit in _UNITS else (option.unit, name)
            flag = option.flag if option.flag is None else option.flag or f"--{stem.replace('_', '-')}"
            kinds = {option.takes} if option.takes else kinds_of(model)[name]
            choices = [each for kind in kinds if get_origin(kind) is Literal for each in get_args(kind)]
            takes = option.takes or next((kind for kind in (bool, int, float, Path) if kind in kinds), str)
            found[name] = replace(option, flag=flag, unit=unit or "|".join(choices), takes=takes)
    return found
