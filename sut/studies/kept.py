"""Rows of a study on disk, a line of JSON after every one, so that a study that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from plugins.files import LARGE_BYTES, read_file
from sut.config import RunConfig, model_stem
from sut.errors import InputError, one_line, writing
from sut.files import holding, write_text
from sut.models.content import content_digest
from sut.pipeline.assembly import Assembly
from sut.results.machine import named, system_facts
from sut.text import as_name

_SCHEMA = 1
_DIGITS = 16
"""Of a model file's hash: enough to tell files apart, and few enough to be read."""


def study_folder(config: RunConfig, name: str, asked: object) -> Path:
    """Where a study is kept: the same for the same one, which ``asked``, JSON data, tells from others of its name."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    model = as_name(config.model_name or model_stem(config.model))
    return config.output / model / f"{name}-{digest}"


class Row(Protocol):
    """A frozen dataclass of what JSON has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> str:
        """Tells this row from all others of its study."""


R = TypeVar("R", bound=Row)


def reader_of(kind: type[R]) -> Callable[[str], R]:
    """What makes a row of that kind of its line of JSON, or raises ``ValueError``."""
    adapter = TypeAdapter(kind)

    def read(line: str) -> R:
        try:
            return adapter.validate_json(line)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from None

    return read


class Kept(Generic[R]):
    """The rows of one study.

    ``header`` says what they belong to: rows of another machine, backend version or model file are not mixed in.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], rows: Sequence[R] = ()) -> None:
        self.path = path
        self._header = dict(header) | {"schema": _SCHEMA}
        self.rows = {row.key: row for row in rows}

    @classmethod
    def read(
        cls,
        path: Path,
        header: Mapping[str, Any],
        row_of: Callable[[str], R],
        what: str,
        *,
        overwrite: bool,
        added: Sequence[str] = (),
    ) -> Self:
        """What is kept in the file of a study (``what``: ``a tune``), or nothing yet.

        ``row_of`` makes a row of a line, or raises ``ValueError``. A file of before they were added to the header does
        not say what is ``added``, and is read all the same. Raises ``InputError`` if the one there has another header.
        """
        kept = cls(path, header)
        if overwrite or not path.exists():
            return kept
        try:
            first, *lines = read_file(path, LARGE_BYTES).decode().splitlines()
            there = dict(json.loads(first))
            rows = [row_of(line) for line in lines]
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: not {what}'s state ({one_line(error)}); --overwrite starts anew") from None
        for key, value in kept._header.items():
            if there.get(key, value if key in added else None) != value:
                raise InputError(
                    f"{path}: its runs are of {key} '{there.get(key)}', here it is '{value}'; --overwrite starts anew"
                )
        return cls(path, header, rows)

    def add(self, row: R) -> None:
        """Keep a row. The file is there whole or as it was before. Raises ``InputError`` if it cannot be written."""
        self.rows[row.key] = row
        lines = [json.dumps(self._header), *(json.dumps(asdict(each)) for each in self.rows.values())]
        with writing(self.path):
            write_text(self.path, "\n".join(lines) + "\n")


def held(directory: Path, what: str) -> AbstractContextManager[None]:
    """Make ``directory`` and hold it for ourselves. Raises ``InputError`` if another study (``a tune``) is there."""
    return holding(directory, f"another {what.partition(' ')[2]} is at work there; wait for it to end")


def header_of(parts: Assembly) -> dict[str, Any]:
    """What all rows of a study have in common, beside the words of its config; of both models where there are two."""
    digest = f", sha256 {content_digest(parts.model.source)[:_DIGITS]}" if parts.model is not None else ""
    second = header_of(parts.second) if parts.second is not None else {}
    return {
        "machine": named(system_facts()),
        "backend": f"{parts.config.backend} {parts.backend.version()}",
        "model": f"{parts.spec.name}{digest}",
        **{f"identify {name}": words for name, words in second.items()},
    }
