"""A study of claims on a page: what was measured here, then what was not and why, and what measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sut.results.page.study import Study
from sut.results.page.tables import Column, Shown, Table
from sut.studies.claims import DECIDED

Rows = Sequence[Mapping[str, Any]]
_BADGES: dict[str, Literal["", "good", "bad"]] = {"holds": "good", "does not hold": "bad"}
_MEASURED = "Measured here: a verdict stands where the whole interval of the rounds lies on one side of their figure."
_OPEN = "Not measured here, and why; the command is what measures it where that is there."


def study_of(content: Mapping[str, Any], key: str) -> Study:
    """See ``sut.studies.pages.Reader``."""
    rows: Rows = content["rows"]
    measured = [row for row in rows if row["verdict"] in DECIDED]
    open_ = [row for row in rows if row["verdict"] not in DECIDED]
    sentences = [f"{words[:1].upper()}{words[1:]}." for words in content["words"]]
    tables = [_claims(_MEASURED, measured, "here", "ours")] if measured else []
    tables += [_claims(_OPEN, open_, "why", "reason")] if open_ else []
    return Study(
        f'"Beyond Inference" on this machine: {content["model"]} on {content["backend"]}', sentences, [], tables
    )


def _claims(caption: str, rows: Rows, heading: str, name: str) -> Table:
    verdicts = [Shown((row["verdict"],), (), _BADGES.get(row["verdict"], "")) for row in rows]
    more = {heading: name, "theirs": "theirs", "command": "command"}
    where = [f"Fig. {row['figure']}" if row["figure"].isdecimal() else row["figure"] for row in rows]
    return Table(
        caption,
        Column("claim", [Shown((row["says"],), (each,)) for row, each in zip(rows, where, strict=True)]),
        [
            Column("verdict", verdicts, False),
            *(Column(head, [Shown((row[at] or "",)) for row in rows], False) for head, at in more.items()),
        ],
        is_sortable=False,
    )
