"""A run that takes a shortcut of its preprocessor says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.children import results, run_sut


@pytest.mark.slow
def test_a_run_that_decodes_smaller_says_so_and_breaks_a_rule(tmp_path: Path) -> None:
    options = ("--backend", "simulated", "--preprocess", "fused", "--boundary", "jpeg", "--time", "0.5")

    child = run_sut(*options, "--set", "preprocess_options.scaled_decode=true", cwd=tmp_path)

    assert child.code in (0, 4), child.err
    result = results(tmp_path)["SingleStream", "performance"]
    mean = result["parity"]["mean_levels"]
    assert result["parity"]["max_levels"] > 1 and mean > 0
    assert f"fused takes scaled_decode: its pixels are off by {mean:.2g} levels on average" in result["notes"]
    assert f"parity of fused: {result['parity']['max_levels']} levels > 1 level" in result["rules_broken"]

    refused = run_sut(*options[:4], "--cache", "1", "--set", "preprocess_options.scaled_decode=true", cwd=tmp_path)

    assert refused.code == 1
    assert "kept tensors do not say by which shortcut they were made" in refused.err
