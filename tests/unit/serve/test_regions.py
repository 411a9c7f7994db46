"""Regions of shared memory: what is asked of them is within them, whatever becomes of the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.serve.refused import Refused
from sut.serve.regions import Regions

SIZE = 1000
_ANY = st.one_of(st.integers(-2, SIZE + 2), st.integers(-(2**64), 2**64))


@pytest.fixture(scope="module")
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory(create=True, size=SIZE)
    made.buf[:] = bytes(number % 251 for number in range(SIZE))
    yield made
    made.close()
    made.unlink()


@pytest.fixture
def regions() -> Iterator[Regions]:
    made = Regions(SIZE)
    yield made
    made.unregister()


@given(offset=_ANY, size=_ANY, at=_ANY, count=_ANY)
def test_only_what_is_within_is_read_and_written(
    memory: SharedMemory, offset: int, size: int, at: int, count: int
) -> None:
    before, regions = bytes(memory.buf), Regions(SIZE)
    try:
        regions.register("mine", f"/{memory.name}", offset, size)
        found = regions.read("mine", at, count)
        assert found == before[offset + at : offset + at + count] and len(found) == count
        assert at >= 0 and at + count <= size and offset >= 0 and offset + size <= SIZE
        regions.write("mine", at, count, found)
        if count < SIZE:
            with pytest.raises(Refused):
                regions.write("mine", at, count, found + b"a")
    except Refused:
        pass
    finally:
        regions.unregister()
    assert bytes(memory.buf) == before


@pytest.mark.parametrize("key", ["", "/", ".", "..", "/..", "../etc/passwd", "/a/b", "a\0b", "not there", "/nothing"])
def test_names_of_other_things_are_refused(regions: Regions, key: str) -> None:
    with pytest.raises(Refused, match="shared memory key"):
        regions.register("mine", key, 0, 1)


def test_a_link_is_not_followed(regions: Regions, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(SIZE))
    link = Path("/dev/shm") / f"sut-test-{os.getpid()}"
    link.symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(Refused):
            regions.register("mine", link.name, 0, 1)
    finally:
        link.unlink()


def test_a_name_is_taken_until_it_is_given_back(regions: Regions, memory: SharedMemory) -> None:
    regions.register("mine", memory.name, 0, 10)
    with pytest.raises(Refused, match="registered already"):
        regions.register("mine", memory.name, 0, 10)
    assert regions.status() == {"mine": {"name": "mine", "key": memory.name, "offset": 0, "byte_size": 10}}
    regions.unregister("mine")
    regions.unregister("mine")

    with pytest.raises(Refused, match="not registered"):
        regions.status("mine")
    regions.register("mine", memory.name, 0, 10)


def test_files_are_closed_with_their_regions(regions: Regions, memory: SharedMemory) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    for number in range(20):
        regions.register(f"{number}", memory.name, 0, 10)
        with pytest.raises(Refused):
            regions.register(f"more {number}", memory.name, 0, 10**9)
    regions.unregister()

    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_what_is_empty_inside_is_not_read_as_a_whole(regions: Regions) -> None:
    huge = SharedMemory(create=True, size=1)
    try:
        os.truncate(f"/dev/shm/{huge.name}", 2**40)
        regions.register("huge", huge.name, 0, 2**40)
        with pytest.raises(Refused, match="expected 1,000 at the most"):
            regions.read("huge", 0, 2**40)
        assert regions.read("huge", 2**39, 10) == bytes(10)
    finally:
        huge.close()
        huge.unlink()


def test_memory_that_was_cut_short_is_neither_read_nor_made_longer(regions: Regions) -> None:
    short = SharedMemory(create=True, size=SIZE)
    try:
        regions.register("short", short.name, 0, SIZE)
        os.truncate(f"/dev/shm/{short.name}", 10)
        with pytest.raises(Refused, match="become shorter"):
            regions.read("short", 0, SIZE)
        with pytest.raises(Refused, match="become shorter"):
            regions.write("short", 20, 10, bytes(10))
        assert Path(f"/dev/shm/{short.name}").stat().st_size == 10
    finally:
        short.close()
        short.unlink()
