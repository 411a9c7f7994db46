"""What the look into shared memory finds, without which a test of what is left there could not fail."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

from tests import shared_memory


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedMemory]:
    monkeypatch.setattr(shared_memory, "_WAIT_S", 0)
    memory = SharedMemory(create=True, size=10)
    yield memory
    memory.unlink()


def test_what_a_process_holds_is_not_left_and_what_it_let_go_of_is(region: SharedMemory) -> None:
    path = Path("/dev/shm") / region.name
    before = shared_memory.files() - {path}

    assert path not in shared_memory.left_since(before)
    region.close()
    assert path in shared_memory.left_since(before)
    assert path not in shared_memory.left_since(before | {path})
