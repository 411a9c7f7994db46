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
from sut.studies.claims import Claim, Ours, Verdict, judged

DECIDED: tuple[Verdict, ...] = ("holds", "does not hold", "cannot be told")
_COUNTED = {"holds": "hold", "does not hold": "do not", "cannot be told": "cannot be told"}
_THEIRS = (
    "their figures are of their machines and models, with GPUs: a verdict is of the claim on this machine, not of the "
    "paper; loads of seconds, to compare with each other, are no results by MLPerf's rules"
)
_OTHERS = "Figs. 2, 10 and 11, of the brokers between two models, are not among these claims"


def told_of(study: Study, budget_s: float) -> dict[str, Any]:
    """What study.json has."""
    figures, reasons = study.figures(), study.reasons()
    base = study.lab.base
    told: dict[str, Any] = {
        "rows": [_row(study, claim, *judged(claim, figures, reasons)) for claim in study.claims],
        "parts": [_part(study, name) for name in study.parts],
        "figures": figures,
        "model": study.model,
        "weights": study.weights,
        "backend": base.backend,
        "device": base.device,
        "preprocess": base.preprocess,
        "parity": {name: line for each in study.kept.rows.values() for name, line in each.parity.items()},
        "rounds": study.lab.rounds,
        "budget_s": budget_s,
        "spent_s": study.spent_s,
    }
    return told | {"words": [*words_of(told, named(system_facts()), datetime.now(UTC).date().isoformat())]}


def _row(study: Study, claim: Claim, verdict: Verdict, ours: Ours) -> dict[str, Any]:
    why = ours.words
    if verdict == "not measured yet":
        why = next((text for name in claim.parts if (text := _trouble(study, name))), why)
    ratio = ours.found
    return {
        "claim": claim.key,
        "figure": claim.figure,
        "says": claim.says,
        "theirs": None if claim.theirs == "-" else claim.theirs,
        "verdict": verdict,
        "ours": ours.words if verdict in DECIDED else None,
        "reason": None if verdict in DECIDED else why,
        "ratio": ratio.ratio if ratio else None,
        "low": ratio.low if ratio else None,
        "high": ratio.high if ratio else None,
        "pairs": ratio.pairs if ratio else None,
        "parts": list(claim.parts),
        "command": f"./run_local.sh {claim.command}",
    }


def _trouble(study: Study, name: str) -> str | None:
    return study.failed.get(name) or study.left_out.get(name)


def _part(study: Study, name: str) -> dict[str, Any]:
    done = study.done(name)
    return {
        "part": name,
        "rounds": len(done),
        "planned_s": study.parts[name].seconds,
        "took_s": [each.took_s for each in done],
        "reason": study.absent.get(name) or _trouble(study, name),
        "failed": name in study.failed,
    }


def words_of(told: Mapping[str, Any], machine: str, day: str) -> Iterator[str]:
    """What the study says: first what was measured here, then what was not, and why."""
    rows: Sequence[Mapping[str, Any]] = told["rows"]
    counts = Counter(row["verdict"] for row in rows)
    counted = ", ".join(f"{counts[verdict]} {words}" for verdict, words in _COUNTED.items())
    open_ = sum(row["verdict"] not in DECIDED for row in rows)
    where = f"{machine}, {day}, {told['model']} on {told['backend']} {told['device']}"
    yield f"measured on {where}: of {len(rows)} claims {counted}, {open_} are not measured"
    for verdict in ("cannot be tested here", "not measured yet"):
        some = [row for row in rows if row["verdict"] == verdict]
        for why in dict.fromkeys(row["reason"] for row in some):
            names = ", ".join(row["claim"] for row in some if row["reason"] == why)
            yield f"{verdict}: {names}: {why}"
    for name, line in told["parity"].items():
        yield f"parity of {name}: {line}"
    if told["weights"] == "random":
        yield RANDOM_WEIGHTS
    yield _THEIRS
    yield _OTHERS


def code_of_study(study: Study) -> ExitCode:
    """Of a failure where a part failed, of something missing where nothing was measured, else that all is well."""
    nothing = [] if study.kept.rows else [ExitCode.SETUP]
    return worst([*study.codes, *nothing])
