"""What the tests of whole runs start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.support import Sut


@pytest.fixture
def sut(tmp_path: Path) -> Sut:
    """``sut run`` in the test's own folder."""
    return Sut(tmp_path)
