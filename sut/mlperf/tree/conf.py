"""Whether a submission's user.conf is that of its run."""

from __future__ import annotations

import math

from sut.mlperf.logs import DETAIL
from sut.mlperf.tree.layout import Tree
from sut.mlperf.tree.results import Log
from sut.mlperf.tree.rules import TreeRule
from sut.mlperf.userconf import Conf

_ROUNDED = 1e-5
"""LoadGen's log has six digits."""
_TARGETS = {
    ("SingleStream", "target_latency"): ("single_stream_expected_latency_ns", 1e6),
    ("MultiStream", "target_latency"): ("multi_stream_expected_latency_ns", 1e6),
    ("Server", "target_latency"): ("server_target_latency_ns", 1e6),
    ("Server", "target_qps"): ("server_target_qps", 1),
    ("Offline", "target_qps"): ("offline_expected_qps", 1),
}
_SAME_NAMES = {
    "min_duration": "min_duration_ms",
    "max_duration": "max_duration_ms",
    "min_query_count": "min_query_count",
    "max_query_count": "max_query_count",
    "performance_sample_count_override": "performance_sample_count_override",
}


def judge_conf(tree: Tree, path: str, log: Log) -> None:
    """Judges the settings of a user.conf that the log of its run tells, too.

    LoadGen reads ``key = value`` with blanks around it, and passes over what it does not know.
    """
    if (text := tree.text(path)) is None:
        return
    lines = (line.split() for line in text.splitlines())
    conf = Conf(tree.root / path, {words[0]: words[2] for words in lines if len(words) == 3 and words[1] == "="})
    keys = {key: (name, 1.0) for key, name in _SAME_NAMES.items()}
    keys |= {key: told for (scenario, key), told in _TARGETS.items() if scenario == log.scenario}
    for key, (name, unit) in keys.items():
        said, logged = conf.lookup(log.place.benchmark.conf, log.scenario, key), log.detail.number(f"requested_{name}")
        if said is None or logged is None:
            continue
        # Of a bound in Server LoadGen takes whole milliseconds, so that no file can repeat another.
        whole = math.ceil(logged / unit) * unit if name == "server_target_latency_ns" else logged
        try:
            agree = any(math.isclose(float(said) * unit, each, rel_tol=_ROUNDED) for each in (logged, whole))
        except ValueError:
            agree = False
        if not agree:
            tree.add(TreeRule.CONF, path, key, said, f"{logged / unit:g} ({DETAIL}, requested_{name})")
