"""MLPerf's rules in a few words: those that a run breaks are sentences, of which a line holds one."""

from __future__ import annotations

from collections.abc import Sequence

AUDIT = "an audit"
"""What breaks a rule in any other run, and is what an audit's run is for."""
QUOTA = "a quota"
"""What breaks a rule of ours, and none of MLPerf's: the system has as many cores as its quota gives it."""
IN_SHORT = {
    "answers depend on the batch: ": "batch-dependent answers",
    "random weights": "random weights",
    "planted weights": "planted weights",
    "runs no model": "no model",
    "behind a server on ": "a server beside LoadGen",
    "weights are the server's ": "unseen weights",
    "the model is on a server, ": "a server",
    "no network lies between": "no network",
    "not in the datacenter suite": "no datacenter benchmark",
    "the server is on this very machine": "a server here",
    "in shared_memory": "shared memory",
    "batched on LoadGen's side": "client batching",
    "preprocesses on LoadGen's side": "client preprocessing",
    " preprocessed on LoadGen's side": "client preprocessing",
    "postprocessed on LoadGen's side": "client postprocessing",
    "the run did not come to its end": "no end",
    "slowdown stretches stages": "stretched stages",
    "LoadGen left no log ": "no log",
    "is a search, not a result": "a search",
    "at the boundary device ": "boundary device",
    "is not this project's own": "a plug-in",
    "min_duration ": "short run",
    " pictures, not ": "few pictures",
    " of a longer list, not ": "part of a list",
    " pictures, more than ": "more pictures",
    " is not MLPerf's ": "another model",
    " is retired: ": "a retired benchmark",
    " has no scenario ": "another scenario",
    "not MLPerf's file": "another model file",
    "Server latency bound ": "relaxed bound",
    "the list of data set ": "another list",
    "int8 is not known ": "own calibration",
    "a quarter of the calibrated one": "low rate",
    " samples < ": "few samples",
    " queries < ": "few queries",
    "performance_sample_count ": "few samples loaded",
    "an audit (": AUDIT,
    " cores held the run back ": QUOTA,
}
"""Rules by what is in them, in a few words, the most telling first."""
_COLUMNS = 80


def rule_name(rule: str) -> str | None:
    """What a broken rule is, in a few words; None of one that has no such name.

    >>> rule_name("min_duration 3 s < 600 s")
    'short run'
    """
    return next((words for part, words in IN_SHORT.items() if part in rule), None)


def in_short(broken: Sequence[str]) -> str:
    """Of rules that are broken how many they are and, as far as a line has room, which; first those without a name of a
    few words, by their beginning where that fits.

    >>> in_short(["random weights", "min_duration 3 s < 600 s"])
    'not official: 2 rules broken (random weights, short run), see rules_broken'
    """
    named = {rule: [words for part, words in IN_SHORT.items() if part in rule] for rule in broken}
    words = [rule.partition(":")[0] for rule, found in named.items() if not found]
    words += [each for each in IN_SHORT.values() if any(each in found for found in named.values())]
    count = f"{len(broken)} rule{'s' if len(broken) > 1 else ''}"
    words.sort(key=lambda each: len(_in_short(count, [each, "..."])) > _COLUMNS)
    lines = [_in_short(count, words)]
    lines += [_in_short(count, [*words[:kept], "..."]) for kept in range(len(words) - 1, -1, -1)]
    return next(line for line in lines if len(line) <= _COLUMNS)


def _in_short(count: str, words: Sequence[str]) -> str:
    return f"not official: {count} broken ({', '.join(words)}), see rules_broken"
