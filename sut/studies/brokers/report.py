"""What a study of brokers has found: a row for each form and fan-out, N*, a verdict for each claim, and words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import median
from typing import Any

from sut.errors import short
from sut.process.cgroup import usable_cores
from sut.results.machine import named, system_facts
from sut.results.wording import RANDOM_WEIGHTS
from sut.studies.brokers.crossing import Best, Crossing, best_of, crossing
from sut.studies.brokers.forms import BROKERS, FUSED
from sut.studies.brokers.paper import NOT_DURABLE, claims_of, rate_at, share_at
from sut.studies.brokers.rounds import BROKER, GROUPS, Round
from sut.studies.brokers.study import Study
from sut.studies.claims import Value, compared, in_figures, judged, row_of

MEMORY_ONLY = (
    "of this Kafka nobody has said that it keeps messages on disks: its figures are of this broker, and stand beside "
    "none of the paper's"
)
_NOT_OURS = "CPU time is of this project's processes; what a broker's own takes of the same cores is not in it"


def told_of(study: Study, budget_s: float) -> dict[str, Any]:
    """What study.json has."""
    cells = {(form.name, each): study.done(form.name, each) for each in study.fan_outs for form in study.forms}
    numbers = range(1, study.rounds + 1)
    rates: dict[str, dict[int, list[Value]]] = {}
    for (form, fan_out), rounds in cells.items():
        by_number = {each.number: each.frames_per_second for each in rounds}
        if rounds:
            rates.setdefault(form, {})[fan_out] = [by_number.get(number) for number in numbers]
    best = best_of(rates, FUSED, [form.name for form in study.forms if form.name != FUSED])
    config, second = study.parts.config, study.parts.second
    assert second is not None
    told: dict[str, Any] = {
        "rows": [_row(form, each, rounds, cells[FUSED, each]) for (form, each), rounds in cells.items()],
        "crossing": asdict(crossing(best)),
        "best": {str(each): asdict(found) for each, found in best.items()},
        "claims": [
            row_of(claim, verdict, ours, ours.words)
            for claim in claims_of(study.fan_outs)
            for verdict, ours in [judged(claim, *_figures(study, cells))]
        ],
        "absent": study.absent,
        "failed": study.failed,
        "durable": {form.name: form.durable for form in study.forms if form.name in BROKERS},
        "channels": {form.name: form.channel for form in study.forms},
        "model": study.parts.spec.name,
        "identify": second.spec.name,
        "weights": second.model.weights if second.model else None,
        "backend": config.backend,
        "lanes": config.lanes,
        "identify_workers": config.identify_workers,
        "identify_batch": config.identify_batch,
        "cores": usable_cores(),
        "rounds": study.rounds,
        "budget_s": budget_s,
    }
    where = f"{named(system_facts())}, {datetime.now(UTC).date().isoformat()}"
    return told | {"words": [*_words(told, best, where), *study.words]}


def _figures(study: Study, cells: Mapping[tuple[str, int], Sequence[Round]]) -> tuple[Any, dict[str, str]]:
    """What claims are judged by, and by form why there is nothing of it."""
    found: dict[str, dict[str, list[Value]]] = {}
    absent = study.absent | study.failed
    for form in study.forms:
        if form.name == "kafka" and not form.durable:
            absent = absent | {"kafka": NOT_DURABLE}
            continue
        for each in study.fan_outs:
            rounds = {one.number: one for one in cells[form.name, each]}
            for number in range(1, study.rounds + 1) if rounds else ():
                one, figures = rounds.get(number), found.setdefault(form.name, {})
                figures.setdefault(rate_at(each), []).append(one.frames_per_second if one else None)
                figures.setdefault(share_at(each), []).append(one.broker_share if one else None)
    return found, absent


def _row(form: str, fan_out: int, rounds: Sequence[Round], fused: Sequence[Round]) -> dict[str, Any]:
    """Medians of a cell's rounds; ``beyond_ns`` is what its latency is over the fused one's, by rounds of both."""
    row: dict[str, Any] = {"form": form, "fan_out": fan_out, "rounds": len(rounds)}
    if not rounds:
        return row
    before = {each.number: each for each in fused}
    both = [(before[each.number], each) for each in rounds if each.number in before]
    rates = [[one.frames_per_second for one in side] for side in zip(*both, strict=True)] or [[], []]
    beyond = [after.latency_ns - one.latency_ns for one, after in both]
    return row | {
        "frames_per_second": median(each.frames_per_second for each in rounds),
        "against_fused": None if form == FUSED else asdict(compared(*rates)),
        "latency_ns": median(each.latency_ns for each in rounds),
        "parts_ns": {group: median(each.parts_ns[group] for each in rounds) for group in GROUPS},
        "broker_share": median(each.broker_share for each in rounds),
        "beyond_ns": None if form == FUSED or not beyond else median(beyond),
        "bytes_per_frame": median(each.bytes_per_frame for each in rounds),
        "cpu_s_per_frame": median(each.cpu_s_per_frame for each in rounds),
        "busy_cores": median(each.cpu_s_per_frame * each.frames_per_second for each in rounds),
    }


def _words(told: Mapping[str, Any], best: Mapping[int, Best], where: str) -> Iterator[str]:
    """The sentences, the one that decides first."""
    models = f"{told['model']}, then {told['identify']}, on {told['backend']}"
    yield f"measured on {where}, {models}: {_crossing_words(Crossing(**told['crossing']), best)}"
    yield from _reasons(told["rows"], best, told["cores"])
    yield from _broker_words(told["rows"])
    for row in told["claims"]:
        ours = f"; here {row['ours']}" if row["ours"] else f": {row['reason']}"
        yield f"they say: {row['says']}: {row['verdict']}{ours}"
    yield from (f"{name} is left out: {why}" for name, why in (told["absent"] | told["failed"]).items())
    if told["durable"].get("kafka") is False:
        yield MEMORY_ONLY
    yield _NOT_OURS
    if told["weights"] == "random":
        yield RANDOM_WEIGHTS


def _crossing_words(found: Crossing, best: Mapping[int, Best]) -> str:
    if not best:
        return "no round has both the fused form and another"
    most, (last, ratio) = max(best), _form_and_ratio(best[max(best)])
    if found.verdict == "none":
        return (
            f"there is no N* up to {most} crops a frame here: the best, {last}, has {ratio} of fused's throughput there"
        )
    if found.verdict == "open":
        return f"an N* up to {most} crops a frame cannot be told: against fused's {last} has {ratio} there"
    form, gain = _form_and_ratio(best[found.at or most])
    return (
        f"N* is {found.at} crops a frame (from {found.low} to {found.high}, of those that were measured): there {form} "
        f"has {gain} of fused's throughput"
    )


def _form_and_ratio(best: Best) -> tuple[str, str]:
    return best.form, in_figures(best.found)


def _reasons(rows: Sequence[Mapping[str, Any]], best: Mapping[int, Best], cores: int) -> Iterator[str]:
    """Why, as far as figures say: what a frame takes of CPU, and how many cores that keeps busy."""
    at = {(row["form"], row["fan_out"]): row for row in rows if row["rounds"]}
    for fan_out in dict.fromkeys((min(best), max(best)) if best else ()):
        sides = [(name, at[name, fan_out]) for name in (FUSED, best[fan_out].form)]
        busy = " and ".join(
            f"{name} {1e3 * row['cpu_s_per_frame']:.3g} ms of CPU a frame, with {row['busy_cores']:.2g} of {cores} "
            "cores busy"
            for name, row in sides
        )
        yield f"at {fan_out} crops a frame, other users of the machine not counted, {busy}"


def _broker_words(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each form takes of the latency at the smallest fan-out."""
    measured = [row for row in rows if row["rounds"] and row["form"] != FUSED]
    for row in measured:
        if row["fan_out"] == min(each["fan_out"] for each in measured) and row["beyond_ns"] is not None:
            yield (
                f"{row['form']}: sending, waiting and coming back take {row['parts_ns'][BROKER] / 1e6:.3g} ms, "
                f"{100 * row['broker_share']:.3g} % of the latency of one frame alone with {row['fan_out']} crop"
                f"{'s' * (row['fan_out'] > 1)}, which is {row['beyond_ns'] / 1e6:+.3g} ms beside fused"
            )


HEADINGS = {
    "Throughput at saturation": ("<crops", "<form", ">frames/s", "<", "<against fused"),
    "One frame alone, and what a frame takes": (
        *("<crops", "<form", ">ms\nalone", ">broker\nms", ">broker\n%", ">beyond\nfused ms", ">kB", ">CPU ms"),
    ),
}
"""Of the tables, by what they show."""
_BAR = 24


def lines_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """The lines of the tables of ``HEADINGS``; the first has bars of up to 24 signs."""
    measured = [row for row in rows if row["rounds"]]
    most = max((row["frames_per_second"] for row in measured), default=0.0) or 1.0
    rates, costs = [], []
    for row in measured:
        name = [str(row["fan_out"]), row["form"]]
        bar = "#" * max(1, round(_BAR * row["frames_per_second"] / most))
        rates.append([*name, short(row["frames_per_second"]), bar, _ratio(row["against_fused"])])
        ms = [row["latency_ns"], row["parts_ns"][BROKER]]
        beyond = "-" if row["beyond_ns"] is None else f"{row['beyond_ns'] / 1e6:+,.4g}"
        costs.append([
            *name,
            *(short(each / 1e6) for each in ms),
            f"{100 * row['broker_share']:.3g}",
            beyond,
            f"{row['bytes_per_frame'] / 1e3:.4g}",
            f"{1e3 * row['cpu_s_per_frame']:.3g}",
        ])  # fmt: skip
    return dict(zip(HEADINGS, (rates, costs), strict=True))


def _ratio(found: Mapping[str, Any] | None) -> str:
    if found is None or found["ratio"] is None:
        return "-"
    between = f" ({found['low']:.3g} to {found['high']:.3g})" if found["low"] is not None else ""
    return f"{found['ratio']:.3g} x{between}"
