"""Packages that write the same module."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.packages import beside
from tests.distributions import write_distribution


def test_two_builds_are_in_each_others_way_only_where_they_lie_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_distribution(one, "onnxruntime")
    monkeypatch.syspath_prepend(one)
    assert beside("onnxruntime") == []

    write_distribution(other, "onnxruntime-gpu")
    monkeypatch.syspath_prepend(other)
    assert beside("onnxruntime") == []

    write_distribution(one, "onnxruntime-gpu", version="2.0")
    monkeypatch.setattr("sys.path", [str(one)])
    assert beside("onnxruntime") == ["onnxruntime", "onnxruntime-gpu"]
