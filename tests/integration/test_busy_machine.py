"""A machine that others use is said, and never decides a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sut.process.cgroup import read_text
from tests.integration.support import Sut

_CORE = min(os.sched_getaffinity(0))
_STAY = f"import os; os.sched_setaffinity(0, {{{_CORE}}})"


@pytest.mark.skipif(f"cpu{_CORE} " not in read_text(Path("/proc/stat")), reason="the kernel tells nothing of our cores")
def test_a_run_beside_a_busy_loop_on_its_core_is_told_and_stands(tmp_path: Path) -> None:
    sut = Sut(tmp_path)
    loop = subprocess.Popen([sys.executable, "-c", f"{_STAY}\nwhile True: pass"])
    try:
        done = sut.run("--backend", "plain", "--dataset-path", sut.pictures(), "--time", "1", prologue=_STAY)
    finally:
        loop.kill()
        loop.wait()

    result = done.result
    assert result["quiet"]["others_share"] > 0.1
    assert result["quiet"]["before"]["others_share"] > 0.1
    assert "SingleStream performance: not quiet: others used " in done.err
    assert not any("quiet" in reason for reason in result["invalid_reasons"] + result["rules_broken"])
    assert (result["failed_samples"], result["first_error"], done.errors) == (0, None, [])
    assert len(result["system"]["load_average"]) == 3
    assert (result["gpus"], result["memory_bytes"]["gpu_peak"]) == (None, None)
