"""What tests of several rooms use."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, which is the test's own and not there yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SUT_CACHE_DIR", str(folder))
    return folder
