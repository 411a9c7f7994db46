"""A study of claims on a page: what was measured here, then what was not and why, and what measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sut.results.page.figures import number
from sut.results.page.study import Study
from sut.results.page.tables import Column, Shown, Table, figures
from sut.studies.beyond_inference.report import DECIDED

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
    title = f'"Beyond Inference" on this machine: {content["model"]} on {content["backend"]}'
    return Study(title, sentences, [], [*tables, _parts(content["parts"])])


def _claims(caption: str, rows: Rows, heading: str, name: str) -> Table:
    return Table(
        caption,
        Column("claim", [Shown((row["says"],), (_place(row["figure"]),)) for row in rows]),
        [
            Column("verdict", [Shown((row["verdict"],), (), _BADGES.get(row["verdict"], "")) for row in rows], False),
            Column(heading, [Shown((row[name],)) for row in rows], False),
            Column("theirs", [Shown((row["theirs"],) if row["theirs"] else ()) for row in rows], False),
            Column("command", [Shown((row["command"],)) for row in rows], False),
        ],
        is_sortable=False,
    )


def _place(figure: str) -> str:
    return f"Fig. {figure}" if figure.isdecimal() else figure


def _parts(rows: Rows) -> Table:
    return Table(
        "What was measured, round by round",
        Column("part", [Shown((row["part"],), (row["reason"] or "",)) for row in rows]),
        [
            figures("rounds", [number(row["rounds"]) for row in rows]),
            figures("s", [number(sum(row["took_s"])) for row in rows]),
        ],
        is_sortable=False,
    )
