"""Judges a LoadGen log that anybody has made, by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sut.mlperf.check_log import check_log
from sut.mlperf.finding import Finding
from sut.mlperf.logs import KNOWN_SEEDS, read_detail, read_summary


def judge_log(folder: Path, seeds: Sequence[Mapping[str, int]] = KNOWN_SEEDS) -> list[Finding]:
    """What is wrong or odd with the logs in a folder. Findings name files as they are called in it.

    Raises ``ValueError`` where there is no log that can be read.
    """
    return check_log(read_detail(folder), read_summary(folder), seeds=seeds)
