"""What libraries are asked about GPUs, each with a stand-in in its place, and what is said where it is not there."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sut.cli.doctor import seen


def said(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    seen.main(name)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found.pop("library") == name
    return found


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(content)
    return made


def torch(cuda: str | None = "13.0", available: bool = True, built: tuple[str, ...] = ("sm_80", "sm_90")) -> ModuleType:
    return module(
        "torch",
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            device_count=lambda: 2,
            is_available=lambda: available,
            get_arch_list=lambda: list(built),
            get_device_capability=[(9, 0), (8, 6)].__getitem__,
        ),
    )


RUNTIME = SimpleNamespace(getDeviceCount=lambda: 2, runtimeGetVersion=lambda: 13020)


@pytest.mark.parametrize(
    ("name", "modules", "gpus", "words"),
    [
        ("cupy", [module("cupy", __version__="14.2", cuda=SimpleNamespace(runtime=RUNTIME))], 2, "14.2, CUDA 13.2"),
        (
            "pycuda",
            [
                module("pycuda", VERSION_TEXT="2026.1"),
                module(
                    "pycuda.driver",
                    init=lambda: None,
                    get_version=lambda: (13, 0, 0),
                    Device=SimpleNamespace(count=lambda: 2),
                ),
            ],
            2,
            "2026.1, built for CUDA 13.0",
        ),
        ("torch", [torch()], 2, "2.13.0, built for CUDA 13.0"),
        ("torch", [torch(cuda=None)], 0, "2.13.0, built for the CPU alone"),
        ("torch", [torch(available=False)], 0, "2.13.0, built for CUDA 13.0; torch.cuda.is_available() says no"),
        ("torch", [torch(built=("compute_80",))], 2, "2.13.0, built for CUDA 13.0"),
        (
            "torch",
            [torch(built=("sm_86", "new"))],
            2,
            "2.13.0, built for CUDA 13.0; it has no code for sm_90 of cuda:0",
        ),
        (
            "torch",
            [torch(built=("sm_90a", "sm_89"))],
            2,
            "2.13.0, built for CUDA 13.0; it has no code for sm_86 of cuda:1",
        ),
    ],
)
def test_a_library_that_works(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    modules: list[ModuleType],
    gpus: int,
    words: str,
) -> None:
    for each in modules:
        monkeypatch.setitem(sys.modules, each.__name__, each)

    assert said(name, capsys) == {"gpus": gpus, "words": words}


def test_one_that_is_not_there_or_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise RuntimeError("no\n driver")

    monkeypatch.setitem(sys.modules, "cupy", None)
    assert said("cupy", capsys)["trouble"].startswith("ModuleNotFoundError: ")
    runtime = SimpleNamespace(getDeviceCount=fail)
    monkeypatch.setitem(sys.modules, "cupy", module("cupy", cuda=SimpleNamespace(runtime=runtime)))
    assert said("cupy", capsys) == {"trouble": "RuntimeError: no driver"}


class Function:
    """Of a library as ctypes shows it: its result, and what it writes to where its arguments point."""

    def __init__(self, result: int = 0, **writes: int) -> None:
        self.result, self.writes = result, writes

    def __call__(self, *arguments: Any) -> int:
        for place, value in self.writes.items():
            arguments[int(place.removeprefix("at"))]._obj.value = value
        return self.result


def libraries(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., int]) -> list[str]:
    """All of these functions in any library; returns the paths that are loaded."""
    loaded: list[str] = []

    def load(path: str) -> SimpleNamespace:
        loaded.append(path)
        if "wheel" in path and "broken" in path:
            raise OSError(path)
        return SimpleNamespace(**functions)

    monkeypatch.setattr(ctypes, "CDLL", load)
    return loaded


def wheels(monkeypatch: pytest.MonkeyPatch, *files: Path) -> None:
    """A package ``nvidia`` whose folders have these."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    folders = [str(file.parents[2]) for file in files]
    monkeypatch.setattr(seen, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=folders))


def test_cudnn_comes_from_a_wheel_that_loads_else_from_the_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    loaded = libraries(monkeypatch, cudnnGetVersion=Function(92801), cudnnGetCudartVersion=Function(13050))
    file = tmp_path / "wheel/nvidia/cudnn/lib/libcudnn.so.9"
    broken = tmp_path / "wheel/broken/cudnn/lib/libcudnn.so.9"
    wheels(monkeypatch, broken, file)

    assert said("cudnn", capsys) == {"gpus": None, "words": "9.28.1, built for CUDA 13.5"}
    assert loaded == [str(broken), str(file)]

    wheels(monkeypatch, broken)
    said("cudnn", capsys)
    assert loaded[2:] == [str(broken), "libcudnn.so.9"]


def nvjpeg(engines: int, cores: int, told: int = 0) -> dict[str, Function]:
    return {
        "cuInit": Function(),
        "cuDeviceGetCount": Function(at0=2),
        "cuDevicePrimaryCtxRetain": Function(),
        "cuCtxSetCurrent": Function(),
        "nvjpegCreateSimple": Function(),
        "nvjpegGetHardwareDecoderInfo": Function(told, at1=engines, at2=cores),
        "nvjpegDestroy": Function(),
    }


def test_engines_are_counted_by_nvjpeg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wheels(monkeypatch)
    libraries(monkeypatch, **nvjpeg(engines=1, cores=7))
    assert said("nvjpeg", capsys) == {"gpus": 2, "words": "JPEG engines: 7 on cuda:0, 7 on cuda:1"}

    libraries(monkeypatch, **nvjpeg(engines=0, cores=0))
    assert said("nvjpeg", capsys)["words"] == "JPEG engines: 0 on cuda:0, 0 on cuda:1"

    libraries(monkeypatch, **nvjpeg(engines=0, cores=0, told=5))
    assert said("nvjpeg", capsys) == {"trouble": "RuntimeError: nvjpegGetHardwareDecoderInfo fails (5)"}
