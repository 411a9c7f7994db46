"""Devices in host form, started once for all tests or of kernels made for one test; ``sut kernels`` without a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import plugins.driver
from kernels.device import SOURCES, DeviceError
from kernels.host import HostDevice
from kernels.host.host_device import Order
from sut.cli import app as cli
from sut.process.signals import Noted

Start = Callable[..., HostDevice]


@pytest.fixture(scope="session")
def _start() -> Iterator[Start]:
    """A device that is started once, and again where a test has ended it."""
    _need_compiler()
    running: dict[tuple[Order, bool], HostDevice] = {}

    def start(order: Order = "forward", count: bool = False) -> HostDevice:
        device = running.get((order, count))
        try:
            if device is not None:
                device.synchronize()
                return device
        except DeviceError:
            device.close()
        device = running[order, count] = HostDevice(order=order, count=count)
        return device

    yield start
    for device in running.values():
        device.close()


def _need_compiler() -> None:
    if shutil.which("g++") is None:
        pytest.skip("the host form of the kernels needs g++")


@pytest.fixture
def host(_start: Start) -> HostDevice:
    """Threads in forward order, nothing counted: the fastest."""
    return _start()


@pytest.fixture(params=["forward", "reverse", "shuffled"])
def each_order(_start: Start, request: pytest.FixtureRequest) -> HostDevice:
    """The device in each of the three orders, one after another."""
    return _start(request.param)


@pytest.fixture
def counting(_start: Start) -> HostDevice:
    """A device that counts sectors and conflicts, with nothing counted yet."""
    device = _start(count=True)
    device.take_counts()
    return device


@pytest.fixture(scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels made for one test are compiled to, so that they do not stay."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tricks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of kernels with those of tricks.cu."""
    folder = tmp_path_factory.mktemp("kernels")
    shutil.copy(SOURCES / "memory.cuh", folder)
    shutil.copy(Path(__file__).with_name("tricks.cu"), folder)
    return folder


@pytest.fixture
def make(tricks: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a device of a folder of kernels, which may be ended by the test."""
    _need_compiler()
    monkeypatch.setenv("SUT_CACHE_DIR", str(own_cache))
    made: list[HostDevice] = []

    def start(sources: Path = tricks, **options: Any) -> HostDevice:
        made.append(HostDevice(sources, **options))
        return made[-1]

    yield start
    for device in made:
        device.close()


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def sut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``sut kernels`` in this process, on a machine without a GPU, whatever this one has."""

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(plugins.driver.ctypes, "CDLL", missing)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Done:
        code = cli._main(["kernels", *arguments], Noted())
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run
