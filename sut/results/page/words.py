"""What a page says: the sentence that decides, Amdahl's line, the warnings, and what the words mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sut.results.machine import differs
from sut.results.page.figures import Number
from sut.results.page.runs import Run, order
from sut.results.page.shares import MODEL, gains, splits
from sut.results.page.tables import Said
from sut.results.rows import machines

SCENARIOS = {
    "SingleStream": "one picture at a time, the next when the last is answered",
    "MultiStream": "eight pictures at a time, the next eight when the last are answered",
    "Server": "pictures at random moments, at a set rate",
    "Offline": "all pictures at once",
    "accuracy": "every picture of the data set once, answers scored",
    "peak search": "LoadGen's own search for Server's highest rate",
}
BOUNDARIES = {
    "device": "from a ready tensor on the accelerator to the answer",
    "tensor": "from a ready tensor (the picture decoded and resized beforehand, as in MLPerf's rules) to the answer",
    "pixels": "from decoded pixels to the answer; decoding is done beforehand",
    "jpeg": "from the JPEG file to the answer",
}
STAGES = {
    "issue_delay": "the load generator is late in asking",
    "queue": "waiting for a lane (a copy of the pipeline that works on one batch at a time)",
    "decode": "JPEG to pixels",
    "resize": "to the model's size",
    "normalize": "to the model's numbers",
    "preprocess": "decoding, resizing and normalising as far as they are inside the clock; a copy where they are not",
    "channel": "waiting, preprocessed, for a lane",
    "gather": "copying into the batch",
    "carry": "pictures and tensors on their way to a node of the cluster and back",
    "h2d": "copying to the GPU",
    "infer": "the model itself; behind a server the way there and back, too",
    "infer/queue": "part of it: waiting on the server",
    "infer/preprocess": "part of it: preprocessing on the server",
    "infer/compute": "part of it: the model on the server",
    "d2h": "copying the model's numbers back",
    "postprocess": "from the model's numbers to an answer",
    "copy": "copying the answer into memory of its own",
    "crop": "cutting what was found out of the frame",
    "identify/preprocess": "crops to the second model's size",
    "identify/send": "putting crops into the channel",
    "identify/wait": "crops waiting for a worker",
    "identify/infer": "the second model itself",
    "identify/return": "labels coming back",
    "complete": "handing the answer over",
    "residual": "what no stage explains",
}
_SHORT_S = 60.0
_NAMED = 3
_ALIKE = 1.01
"""Times as good: nobody is called ahead by less."""


def scenario(kind: str) -> str:
    """How pictures are asked for in a scenario."""
    return SCENARIOS.get(kind, "another scenario")


def lead_of(runs: Sequence[Run]) -> Run | None:
    """The run whose bar stands at the top: the most of the way from JPEG to answer, the plainest scenario, the best."""
    boundaries, scenarios = ("jpeg", "pixels", "tensor"), ("SingleStream", "Server", "MultiStream", "Offline")

    def rank(run: Run) -> tuple[bool, int, int, float, str]:
        result = run.result
        boundary = boundaries.index(result.boundary) if result.boundary in boundaries else len(boundaries)
        scenario = scenarios.index(result.scenario) if result.scenario in scenarios else len(scenarios)
        return result.valid is False, boundary, scenario, *order(run)[2:]

    return min((run for run in latest(runs) if run.is_performance and splits(run.result)), key=rank, default=None)


def latest(runs: Sequence[Run]) -> list[Run]:
    """Of each configuration the latest run of each kind, in order: the best of several would be chosen by luck."""
    found = {(run.setup, run.kind): run for run in sorted(runs, key=lambda run: run.result.started)}
    return [run for run in runs if found[run.setup, run.kind] is run]


def deciding(runs: Sequence[Run]) -> Said:
    """What results without a comparison say, in a sentence."""
    runs = latest(runs)
    setups = {run.setup for run in runs}
    return _one_setup(runs) if len(setups) == 1 else _many_setups(runs, len(setups))


def _one_setup(runs: Sequence[Run]) -> Said:
    result = runs[0].result
    weights = f", {result.weights} weights" if result.weights in ("random", "planted") else ""
    by_kind = {run.kind: run for run in runs if run.result.valid is not False}
    said: list[Said] = []
    if single := by_kind.get("SingleStream"):
        said.append(_percentiles("answers one picture", single))
    if (several := by_kind.get("MultiStream")) and not single:
        said.append(_percentiles("answers a query of several pictures", several))
    if (server := by_kind.get("Server")) and not single:
        said.append(_percentiles("answers a picture that comes at a random moment", server))
        if said[-1] and (rate := server.number("", "metric", "value")):
            said[-1] += (" at ", rate, " a second")
    if (offline := by_kind.get("Offline")) and (rate := offline.number("", "metric", "value")):
        said.append((("" if said else "answers "), rate, " pictures a second when all are there at once"))
    said = [part for part in said if part]
    if (scored := by_kind.get("accuracy")) and (share := scored.number("%", "accuracy", "value")):
        pictures = scored.number("", "accuracy", "count")
        is_top1 = scored.result.accuracy is None or scored.result.accuracy.name == "top1"
        kept = ("labels ", share, " % of ", pictures or "the", " pictures right")
        said.append(kept if is_top1 else ("has an mAP of ", share, " % over ", pictures or "the", " pictures"))
    where = f"{result.model}{weights} on {result.backend} ({result.device}, {result.precision})"
    if not said:
        verdict = "failed" if any(run.result.failed for run in runs) else "has no figure that counts"
        return (f"{where} {verdict}: {_why(runs)}",)
    joined: list[str | Number] = [f"{where} "]
    for position, part in enumerate(said):
        joined += [", and " if position and position == len(said) - 1 else ", " if position else "", *part]
    return (*joined, ".")


def _why(runs: Sequence[Run]) -> str:
    reasons = [reason for run in runs for reason in (*run.result.invalid_reasons, run.result.first_error) if reason]
    return reasons[0] if reasons else "nothing was measured"


def _percentiles(what: str, run: Run) -> Said:
    p50, p99 = (run.number("ms", "latency_ns", name) for name in ("p50", "p99"))
    if p50 is None or p99 is None:
        return ()
    return f"{what} in ", p50, " ms (half of them; 99 in 100 within ", p99, " ms)"


def _many_setups(runs: Sequence[Run], setups: int) -> Said:
    counting = sorted((run for run in runs if run.is_performance and run.result.valid), key=order)
    for kind in ("Offline", "SingleStream", "Server", "MultiStream"):
        for first in (run for run in counting if run.kind == kind):
            others = (run for run in counting if run.kind == kind and run.setup != first.setup and _alike(run, first))
            second = next(others, None)
            if second is not None and (said := _ahead(kind, first, second)):
                return said
    return (f"{setups} configurations, of which no two have figures of the same work that count: nothing to compare.",)


_WORK = ("dataset", "dataset_path", "count", "qps", "samples_per_query")
"""Settings in which runs must be equal, beside model, boundary and machine, for one to be better than the other."""


def _alike(run: Run, other: Run) -> bool:
    """Whether two runs are of the same work on the same machine."""
    one, two = (
        (each.result.model, each.result.boundary, *(each.result.config.get(name) for name in _WORK))
        for each in (run, other)
    )
    return one == two and not differs(run.result.system, other.result.system)


def _ahead(kind: str, first: Run, second: Run) -> Said:
    best, next_ = first.number("", "metric", "value"), second.number("", "metric", "value")
    metric = first.result.metric
    if best is None or next_ is None or metric is None or min(best.raw, next_.raw) <= 0:
        return ()
    ratio = best.raw / next_.raw if metric.higher_is_better else next_.raw / best.raw
    if ratio < _ALIKE:
        return (f"In {kind}, {first.label} and {second.label} are within 1 % of each other, which says nothing yet.",)
    return (
        f"In {kind}, {first.label} is ahead: ",
        Number(ratio),
        f" times as good as the next, {second.label}. These are single runs: whether that is more than noise, "
        "./run_local.sh compare tells.",
    )


def amdahl(run: Run) -> Said:
    """What share the model has, and what would be gained if it took no time."""
    found = splits(run.result)
    shares = [share for each in found if (share := each.share(MODEL))]
    if not shares:
        return ()
    said: list[str | Number] = ["The model itself is ", shares[0]]
    if found[0].of == "work":
        said.append(" % of the work on a picture")
    elif found[0].of == "mean":
        said.append(" % of the mean latency")
    else:
        # There LoadGen's own latency is that of a query, whose pictures have one each.
        whose = " of a picture" if run.result.scenario == "MultiStream" else ""
        said.append(" % of p50")
        said += [" and ", shares[1], " % of p99"] if len(shares) > 1 else []
        said.append(whose)
    gained = gains(run)
    if gained is None:
        return (*said, _no_gain(run.result.boundary))
    said += ["; if it were free: ", *_gain(gained.gain_without_inference), " throughput; if preprocessing were free: "]
    return (*said, *_gain(gained.gain_without_preprocessing), ".")


def _no_gain(boundary: str) -> str:
    if boundary not in ("tensor", "device"):
        return "."
    return (
        f". Decoding and resizing are outside this clock (boundary {boundary}), so what a faster model would gain from "
        "JPEG to answer cannot be said: ./run_local.sh boundary measures it, or a run with --boundary jpeg."
    )


def _gain(gain: float) -> Said:
    return ("unbounded",) if math.isinf(gain) else ("+", Number(gain, "%"), " %")


def warnings(runs: Sequence[Run]) -> list[str]:
    """What a reader must know before believing a figure."""
    failed = [run for run in runs if run.result.failed]
    invalid = [run for run in runs if run.result.valid is False and not run.result.failed]
    found = [f"FAILED: {run.name}: {run.result.first_error or 'samples failed'}" for run in failed]
    found += [f"INVALID: {run.name}: {'; '.join(run.result.invalid_reasons)}" for run in invalid]
    found = [*found[:20], f"and {len(found) - 20:,} more that do not count"] if len(found) > 20 else found
    timed = [run for run in runs if run.is_performance]
    if short := [run for run in timed if (run.result.duration_s or _SHORT_S) < _SHORT_S]:
        found.append(f"Short: {_some(short, timed)} took less than a minute, where MLPerf asks for ten")
    if random := [run for run in runs if run.result.weights == "random"]:
        found.append(f"Random weights: {_some(random, runs)}; the speed is real, the answers mean nothing")
    if planted := [run for run in runs if run.result.weights == "planted"]:
        found.append(
            f"Planted weights: {_some(planted, runs)}; the accuracy is that of all around the model, not of one"
        )
    if empty := [run for run in runs if run.result.weights is None]:
        backend = empty[0].result.backend
        found.append(f"No model: {_some(empty, runs)}; {backend} executes none, so its figures are no model's")
    found += _busy(timed)
    found += _gpus(timed)
    found += _machines(runs)
    found += _versions(runs)
    return found


def _busy(runs: Sequence[Run]) -> list[str]:
    known = [(run, quiet) for run in runs if (quiet := run.result.quiet) is not None]
    found = []
    if busy := [(run, quiet) for run, quiet in known if quiet.is_quiet is False]:
        run, quiet = max(busy, key=lambda each: each[1].others_share or 0.0)
        found.append(f"Busy machine: {_some(busy, runs)}; {run.name}: {quiet.line()}")
    if unknown := [run for run in runs if run.result.quiet is None or run.result.quiet.is_quiet is None]:
        found.append(f"How busy the machine was is not recorded: {_some(unknown, runs)}")
    return found


def _gpus(runs: Sequence[Run]) -> list[str]:
    known = [(run, [told for gpu in run.result.gpus or () for told in gpu.warnings()]) for run in runs]
    told = [(run, warnings[0]) for run, warnings in known if warnings]
    return [f"A GPU that was not free: {_some(told, runs)}; {told[0][0].name}: {told[0][1]}"] if told else []


def _machines(runs: Sequence[Run]) -> list[str]:
    found = machines([run.row for run in runs])
    if not found:
        return []
    more = f"; and {len(found) - _NAMED:,} differences more" if len(found) > _NAMED else ""
    return [f"More than one machine ({'; '.join(found[:_NAMED])}{more}): compare what ran on the same one only"]


def _versions(runs: Sequence[Run]) -> list[str]:
    found: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        found.setdefault(("model", run.result.model), set()).add(run.result.model_sha256 or "")
        found.setdefault(("backend", run.result.backend), set()).add(run.result.backend_version or "")
    return [f"More than one version of {what} {name}" for (what, name), each in found.items() if len(each - {""}) > 1]


def _some(some: Sequence[object], all_: Sequence[object]) -> str:
    if len(some) < len(all_):
        return f"{len(some):,} of {len(all_):,} runs"
    return "all runs" if len(all_) > 1 else "the run"
