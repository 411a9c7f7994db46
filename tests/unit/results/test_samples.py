"""What is kept of each sample is what it went through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sut.errors import InputError
from sut.results.samples import FILE, Samples
from tests.children import results, run_sut


def test_the_samples_of_a_run_are_those_of_its_result(tmp_path: Path) -> None:
    few = tmp_path / "few.conf"
    few.write_text("*.Server.min_query_count = 60\n")
    system = "--backend simulated --preprocess simulated --boundary jpeg --preprocess-workers 1"
    load = "--scenario Server --time 1 --qps 60 --max-latency 5 --set relax_server=true --set keep_samples=true"
    decode = "--set preprocess_options.decode_ms=3"
    child = run_sut(*f"{system} {load} {decode}".split(), "--user_conf", few, cwd=tmp_path)

    assert child.code in (0, 4), child.err
    result = results(tmp_path)["Server", "performance"]
    found = Samples.load(result["directory"] / FILE)
    assert len(found.index) == result["samples"]
    assert set(found.index.tolist()) <= set(range(11))
    assert list(found.stages_ns) == list(result["stages_ns"])
    assert {name: round(values.mean()) for name, values in found.stages_ns.items()} == {
        name: pytest.approx(stats["mean"], abs=1) for name, stats in result["stages_ns"].items()
    }
    np.testing.assert_array_equal(sum(found.stages_ns.values()), found.latency_ns)
    assert 0.5e9 < np.ptp(found.scheduled_ns) < 60e9


def test_what_is_no_file_of_samples_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no zip")

    with pytest.raises(InputError, match=r"samples\.npz: no samples of a run"):
        Samples.load(tmp_path / FILE)
