"""The GPU report without a GPU: each part fails alone, and the page says why."""

from __future__ import annotations

import doctest
import importlib.util
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kernels import gpu
from preprocess import registry
from preprocess.opencv import OpenCV
from sut import device_library
from sut.models.registry import find
from tests.unit.device_form import PLACE, HostForm, Uploading, WatchedDevice

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_report", TOOLS / "gpu_report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def preprocessing(report: ModuleType) -> ModuleType:
    return sys.modules[report.preprocess.__module__]


@pytest.mark.parametrize("name", ["report", "preprocessing"])
def test_its_examples_hold(request: pytest.FixtureRequest, name: str) -> None:
    found = doctest.testmod(request.getfixturevalue(name))
    assert found.failed == 0
    assert found.attempted > 0


def test_the_page_lists_what_was_found(report: ModuleType) -> None:
    parts = {
        "gpu": {"ok": True, "found": {"gpus": [{"name": "X"}]}},
        "doctor": {"ok": True, "found": {"rows": [{"name": "numpy", "status": "ok", "found": "2.4"}]}},
    }

    page = report.markdown({"made": "now", "parts": parts})

    assert '- gpus: `[{"name": "X"}]`' in page
    assert "- numpy: ok, 2.4" in page


@pytest.mark.parametrize("part", ["imports", "doctor"])
def test_parts_that_need_no_gpu_run_here(report: ModuleType, part: str) -> None:
    found = report.run_part(part)

    assert found["ok"], found
    assert json.dumps(found)


def test_a_part_that_fails_says_why(report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "gpu_report.py"
    broken.write_text("import sys; print('no json'); sys.exit(7)")
    monkeypatch.setattr(report, "__file__", str(broken))

    found = report.run_part("imports")

    assert (found["ok"], "ended with 7" in found["why"]) == (False, True)


def test_a_machine_without_a_gpu_is_refused(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "run_part", lambda name: {"ok": False, "why": "no such program"})

    assert report.main([str(tmp_path / "out")]) == 2
    assert "error: no NVIDIA GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_with_a_gpu_every_part_is_in_the_report(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"cases": 1, "wrong": [], "exit_code": 0}
    monkeypatch.setattr(report, "run_part", lambda name: {"ok": name != "doctor", "why": "no", "found": found})

    assert report.main([str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == "error: doctor: no"
    assert set(json.loads((tmp_path / "out" / "report.json").read_text())["parts"]) == set(report.PARTS)
    assert "Did not run: no" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ({"cases": 2, "wrong": [], "exit_code": 0}, 0, None),
        ({"cases": 2, "wrong": [{"kernel": "a"}], "exit_code": 3}, 3, "error: kernels_check: 1 wrong of 2"),
        ({"cases": 0, "wrong": [], "exit_code": 0}, 3, "error: kernels_check: ended with 0, 0 cases"),
        ({"cases": 2, "wrong": [], "exit_code": 2}, 3, "error: kernels_check: ended with 2, 2 cases"),
    ],
)
def test_kernels_that_are_not_all_equal_fail_the_report(
    report: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    found: dict[str, Any],
    code: int,
    said: str | None,
) -> None:
    parts = {name: {"a": 1} for name in report.PARTS} | {"kernels_check": found}
    monkeypatch.setattr(report, "run_part", lambda name: {"ok": True, "found": parts[name]})

    assert report.main([str(tmp_path)]) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == ([] if said is None else [said])


def test_parity_keeps_the_rows_and_shows_labels_and_levels(report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {
            "preprocess": "cuda",
            "pictures": pictures,
            "parity": {"pictures": 9, "max_levels": 2},
            "labels_same": same,
            "labels": labels,
        }
        for pictures, same, labels in (("noise", None, None), ("crops", 8, 9))
    ]
    asked = []
    monkeypatch.setattr(report, "_sut", lambda *arguments: asked.append(arguments) or (0, rows, ""))

    found = report.parity()

    assert asked == [("parity", "--preprocess", "cuda,dali-gpu,dali-gpu-resize")]
    assert found["measured"] == rows
    assert [row["labels"] for row in found["table"]] == [None, "8 of 9 the same"]
    assert {row["max_levels"] for row in found["table"]} == {2}

    monkeypatch.setattr(report, "_sut", lambda *arguments: (2, [], "no GPU"))
    with pytest.raises(RuntimeError, match="ended with 2: no GPU"):
        report.parity()


class OnGpu(OpenCV):
    """In the place of a preprocessor on a GPU, and counted like one."""

    def __init__(self, recipe: Any, *, hw_share: float = 1.0) -> None:
        if hw_share == 1.0 and self.name == "dali-gpu":
            raise ValueError("no JPEG\nengine")
        super().__init__(recipe)

    def counts(self) -> dict[str, int]:
        return {"pictures were decoded by the CPU": 3, "batches were copied": 5}


def test_preprocessing_is_timed_at_every_share(preprocessing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = {name: type(name, (OnGpu,), {"name": name}) for name in ("cuda", "dali-gpu")}
    monkeypatch.setattr(registry, "load", lambda name: fakes.get(name, OpenCV))
    monkeypatch.setattr(preprocessing, "_pictures", lambda: [open_photo()] * 2)
    monkeypatch.setattr(preprocessing, "LANES", (1,))

    found = preprocessing.preprocess(seconds=0)

    assert [(row["preprocess"], row["hw_share"]) for row in found["table"]] == [
        ("opencv", None),
        ("cuda", 0.0),
        ("cuda", 0.5),
        ("cuda", 1.0),
        ("dali-gpu", 0.0),
        ("dali-gpu", 0.5),
    ]
    assert found["table"][0]["lanes"] == found["cores"]
    assert [row["by_cpu"] for row in found["table"]] == [0, 3, 3, 3, 3, 3]
    assert all(row["pictures_per_second"] > 0 for row in found["table"])
    engine, shared, kernels = (found["table"][at]["pictures_per_second"] for at in (1, 2, 3))
    assert [row["of_decoders_alone"] for row in found["table"]] == [
        None,
        None,
        pytest.approx(shared / (engine + kernels)),
        None,
        None,
        None,  # one of the two has no rate
    ]
    assert [(row["preprocess"], row["hw_share"], row["why"]) for row in found["wrong"]] == [
        ("dali-gpu", 1.0, "ValueError: no JPEG engine")
    ]


def test_preprocessing_that_is_not_installed_is_named(
    preprocessing: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> type[OpenCV]:
        if name != "opencv":
            raise ModuleNotFoundError(f"{name} needs a GPU")
        return OpenCV

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(preprocessing, "_pictures", lambda: [open_photo()])

    found = preprocessing.preprocess(seconds=0)

    assert [row["preprocess"] for row in found["table"]] == ["opencv"]
    assert [row["preprocess"] for row in found["wrong"]] == ["cuda", "dali-gpu"]


def test_a_rate_counts_the_batches_of_all_lanes(preprocessing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(preprocessing.time, "perf_counter", lambda: next(clock))
    runs: list[None] = []

    found = preprocessing.rate(lambda stack: lambda: runs.append(None), lanes=1, batch=4, seconds=3)

    # The clock goes on by one at each look: begin 0; looks at 1, 2 and 3 (the first batch needs none); the end 4.
    assert (len(runs) - 2, found) == (3, 4 * 3 / 4)


def test_a_lane_that_fails_ends_the_others(preprocessing: ModuleType) -> None:
    lanes = iter(range(3))

    def start(stack: ExitStack) -> Any:
        if next(lanes) == 2:
            raise ValueError("too little memory")
        return lambda: None

    with pytest.raises(ValueError, match="too little memory"):
        preprocessing.rate(start, lanes=3, batch=1, seconds=0)


def test_the_functions_that_were_called_are_named(preprocessing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "exercise", lambda name: {"version": OpenCV.version()})

    found = preprocessing.preprocess_ran()

    assert found["functions"] == ["preprocess.opencv.OpenCV.version"]
    assert set(found["parity"]) == {"cuda", "dali-gpu", "dali-gpu-resize"}


class Shared(WatchedDevice):
    """One device for all, as a GPU's primary context is: it outlives who uses it."""

    def close(self) -> None:
        """Ends with ``end``."""

    def end(self) -> None:
        super().close()


@pytest.fixture
def gpu_in_host_form(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HostForm]]:
    if shutil.which("g++") is None:
        pytest.skip("the host form of the kernels needs g++")
    device = Shared()

    class Made(HostForm):
        def __init__(self, recipe: Any, *, hw_share: float = 1.0) -> None:
            super().__init__(recipe, device, Uploading(device), PLACE)

    monkeypatch.setattr(gpu, "open_device", lambda name: device)
    monkeypatch.setattr(registry, "load", lambda name: Made)
    yield Made
    device.end()


def test_rows_on_the_device_are_those_on_the_host(
    preprocessing: ModuleType, gpu_in_host_form: type[HostForm], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = preprocessing.exercise("cuda")

    assert found["max_levels"] <= 1
    assert sum(found["counts"].values()) > 0  # batches that went to host memory

    fill = device_library._DeviceGather.fill
    monkeypatch.setattr(
        device_library._DeviceGather, "fill", lambda self, indices, *others: fill(self, indices[::-1], *others)
    )
    with pytest.raises(RuntimeError, match="cuda: rows in the GPU's memory differ from those in host memory"):
        preprocessing.exercise("cuda")


def test_what_is_timed_writes_to_the_device(preprocessing: ModuleType, gpu_in_host_form: type[HostForm]) -> None:
    counted: Counter[str] = Counter()
    start = partial(preprocessing._lane, gpu_in_host_form, find("resnet50").recipe, [open_photo()] * 2, {}, counted)

    assert preprocessing.rate(start, lanes=1, batch=2, seconds=0) > 0
    assert counted and not any(counted.values())  # nothing by the CPU, nothing to host memory


def open_photo() -> bytes:
    return next((TOOLS.parent / "sut/datasets/demo_photos").glob("*.jpg")).read_bytes()
