"""Where compiled functions are kept."""

from __future__ import annotations

from pathlib import Path

import numba
import pytest

from plugins.machine_code import code_folder


def test_the_folder_may_be_named_after_numba_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    named = code_folder("uint8")
    monkeypatch.delenv("NUMBA_CACHE_DIR")

    assert named is not None and named.parent == tmp_path
    assert code_folder("uint8") is None
