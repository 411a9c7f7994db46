"""Core sets of the CPU as devices, with a real runtime: its own threads stay with the lanes that they work for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.children import results, run_sut
from tests.integration.test_truth import labels_in, right_labels

CORES = sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(len(CORES) < 2, reason="two core sets need two cores")
@pytest.mark.first(1)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_two_core_sets_have_a_model_each(tmp_path: Path, backend: str) -> None:
    first, second = map(str, CORES[:2])

    child = run_sut(
        *("--backend", backend, "--scenario", "Offline", "--accuracy", "--threads", "2", "--lanes", "2"),
        *("--affinity", f"lanes={first}/{second}"),
        cwd=tmp_path,
    )

    assert child.code == 0, child.err
    [result] = results(tmp_path).values()
    assert (result["attested"]["device"], result["plan"]["lanes"]) == ("cpu", 2)
    assert labels_in(result["directory"]) == right_labels()
    cores = result["thread_cores"]
    assert (cores["lane-0"], cores["lane-1"]) == (first, second)
    others = {where: int(count) for count, where in re.findall(r"(\d+) on ([\d,-]+?)(?:,\s|$)", cores["others"])}
    assert others[first] >= 1 and others[second] >= 1, "the runtime's"
