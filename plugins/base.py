"""What backends and preprocessors are alike in: a name, options, an end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

from plugins.options import NoOptions, read


class Closing:
    """Something that is closed at the end of a ``with``."""

    def close(self) -> None:
        """Give back what it holds. Called once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Plugin(Closing):
    """A class that is chosen by its name."""

    name: ClassVar[str]
    options: ClassVar[type[Any]] = NoOptions
    """A frozen dataclass of what a user may set, see ``plugins/options.py``."""

    def __init_subclass__(cls) -> None:
        if not (isinstance(cls.options, type) and is_dataclass(cls.options)):
            raise TypeError(f"options of {cls.__name__}: got {cls.options!r}, expected a dataclass")

    @classmethod
    def read_options(cls, given: Mapping[str, Any]) -> Any:
        """An object of ``options`` with what the user has set.

        Raises ``ValueError`` for an option that there is not, with the nearest one and all of them, and for a value
        that is none. It is called before anything is made, too: what can be judged by itself is judged early.
        """
        return read(cls.name, cls.options, given)
