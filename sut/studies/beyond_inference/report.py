"""What a study of claims has found: a row for each claim, and what they say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sut.errors import ExitCode, worst
from sut.results.machine import named, system_facts
from sut.results.wording import RANDOM_WEIGHTS
from sut.studies.beyond_inference.study import Study
from sut.studies.claims import DECIDED, Claim, Ours, Verdict, judged, row_of

_THEIRS = (
    "their figures are of their machines and models, with GPUs: a verdict is of the claim on this machine, not of the "
    "paper; loads of seconds, to compare with each other, are no results by MLPerf's rules"
)
_OTHERS = "Figs. 2, 10 and 11, of the brokers between two models, are not among these claims"


def told_of(study: Study, budget_s: float) -> dict[str, Any]:
    """What study.json has."""
    figures, base = study.figures(), study.lab.base
    told: dict[str, Any] = {
        "rows": [_row(study, claim, *judged(claim, figures, study.absent)) for claim in study.claims],
        "figures": figures,
        "took_s": {name: [each.took_s for each in study.done(name)] for name in study.parts},
        "model": study.model,
        "weights": study.weights,
        "backend": base.backend,
        "device": base.device,
        "preprocess": base.preprocess,
        "parity": {name: line for each in study.kept.rows.values() for name, line in each.found.parity.items()},
        "rounds": study.lab.rounds,
        "budget_s": budget_s,
        "spent_s": study.spent_s,
    }
    where = f"{named(system_facts())}, {datetime.now(UTC).date().isoformat()}"
    return told | {"words": [*_words(told, f"{where}, {study.model} on {base.backend} {base.device}")]}


def _row(study: Study, claim: Claim, verdict: Verdict, ours: Ours) -> dict[str, Any]:
    why = ours.words
    if verdict == "not measured yet":
        troubles = study.left_out | study.failed
        why = next((troubles[name] for name in claim.parts if name in troubles), why)
    return row_of(claim, verdict, ours, why) | {"parts": list(claim.parts)}


def _words(told: Mapping[str, Any], where: str) -> Iterator[str]:
    """What the study says: first what was measured here, then what was not, and why."""
    rows: Sequence[Mapping[str, Any]] = told["rows"]
    counts = Counter(row["verdict"] for row in rows)
    holds, not_, open_ = (counts[verdict] for verdict in DECIDED)
    counted = f"{holds} hold, {not_} do not, {open_} cannot be told"
    yield f"measured on {where}: of {len(rows)} claims {counted}, {len(rows) - holds - not_ - open_} are not measured"
    why = [(row["verdict"], row["reason"]) for row in rows if row["reason"]]
    for verdict, reason in sorted(dict.fromkeys(why)):
        names = [row["claim"] for row in rows if (row["verdict"], row["reason"]) == (verdict, reason)]
        yield f"{verdict}: {', '.join(names)}: {reason}"
    yield from (f"parity of {name}: {line}" for name, line in told["parity"].items())
    yield from [RANDOM_WEIGHTS] if told["weights"] == "random" else []
    yield from (_THEIRS, _OTHERS)


def code_of_study(study: Study) -> ExitCode:
    """Of a failure where a part failed, of something missing where nothing was measured, else that all is well."""
    return worst([*study.codes, *([] if study.kept.rows else [ExitCode.SETUP])])
