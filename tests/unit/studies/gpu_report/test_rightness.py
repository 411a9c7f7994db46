"""How right preprocessing is, as the GPU report finds it, without a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from preprocess import registry
from preprocess.cuda import BY_CPU
from preprocess.opencv import OpenCV
from preprocess.parts.jpeg import read_frame
from sut.qsl import device_library
from sut.results import parity
from sut.results.parity import photos
from sut.studies.gpu_report import rightness
from tests.unit.device_form import HostForm
from tests.unit.studies.gpu_report.figures import parity_rows, same_rows


def test_parity_is_measured_one_by_one_and_what_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def sut(*arguments: str) -> Any:
        asked.append(arguments)
        if arguments[-1] == "dali-gpu-resize":
            raise RuntimeError("sut parity ended\nwith 3")
        return 0, parity_rows(arguments[-1]), ""

    monkeypatch.setattr(rightness, "rows_of", sut)
    monkeypatch.setattr(rightness, "same_pixels", same_rows)

    found = rightness.parity(["cuda", "dali-gpu-resize"])

    assert asked == [("parity", "--preprocess", name) for name in ("cuda", "dali-gpu-resize")]
    assert found["measured"] == parity_rows("cuda")
    assert found["same_pixels"] == same_rows("cuda")
    assert found["wrong"] == [{"of": "dali-gpu-resize", "why": "RuntimeError: sut parity ended with 3"}]
    assert [row["labels"] for row in found["table"]] == [None, "98 of 99 the same", None]
    assert [row["max_levels"] for row in found["table"]] == [2, 2, 1]


def test_what_is_not_installed_ends_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def sut(*arguments: str) -> Any:
        raise ModuleNotFoundError("nothing here")

    monkeypatch.setattr(rightness, "rows_of", sut)
    with pytest.raises(ModuleNotFoundError, match="nothing here"):
        rightness.parity(["cuda"])


def test_the_functions_that_were_called_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rightness, "exercise", lambda name: {"version": OpenCV.version()})
    monkeypatch.setattr(rightness, "has_engine", lambda: False)

    found = rightness.preprocess_ran()

    assert found["functions"] == ["preprocess.opencv.OpenCV.version"]
    assert set(found["parity"]) == {"cuda", "dali-gpu", "dali-gpu-resize"}
    assert (found["jpeg_engine"], found["wrong"], found["not_installed"]) == (False, [], {})


def test_one_that_cannot_be_exercised_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"cuda": RuntimeError("rows\ndiffer"), "dali-gpu": ModuleNotFoundError("no DALI")}

    def exercise(name: str) -> dict[str, int]:
        if name in errors:
            registry.names()
            raise errors[name]
        OpenCV.version()
        return {"max_levels": 1}

    monkeypatch.setattr(rightness, "exercise", exercise)
    monkeypatch.setattr(rightness, "has_engine", lambda: False)

    found = rightness.preprocess_ran()

    assert found["parity"] == {"dali-gpu-resize": {"max_levels": 1}}
    assert found["wrong"] == [{"of": "cuda", "why": "RuntimeError: rows differ"}]
    assert found["not_installed"] == {"dali-gpu": "ModuleNotFoundError: no DALI"}
    assert found["functions"] == ["preprocess.opencv.OpenCV.version"], "what failed has not shown that it works"


def test_rows_on_the_device_are_those_on_the_host(
    gpu_in_host_form: type[HostForm], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rightness.exercise("cuda")

    assert found["max_levels"] <= 1
    assert sum(found["counts"].values()) > 0  # batches that went to host memory

    fill = device_library._DeviceGather.fill
    monkeypatch.setattr(
        device_library._DeviceGather, "fill", lambda self, indices, *others: fill(self, indices[::-1], *others)
    )
    with pytest.raises(RuntimeError, match="cuda: rows in the GPU's memory differ from those in host memory"):
        rightness.exercise("cuda")


def test_odd_pictures_go_the_cpus_way_before(gpu_in_host_form: type[HostForm]) -> None:
    png, progressive, half, header = rightness._odd(photos()[0])

    assert png.startswith(b"\x89PNG")
    frame = read_frame(progressive)
    assert frame is not None and frame.coding == "progressive"
    assert read_frame(half) == read_frame(header) == read_frame(photos()[0])
    assert rightness.exercise("cuda")["counts"][BY_CPU] >= 2


@pytest.mark.parametrize("wrong", [False, True])
def test_the_same_pixels_are_held_to_the_oracle(
    gpu_in_host_form: type[HostForm], monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    monkeypatch.setattr(parity, "photos", lambda: [photos()[0]])
    monkeypatch.setattr(parity, "sizes", lambda count: [])
    if wrong:
        run_pixels = gpu_in_host_form.run_pixels
        monkeypatch.setattr(
            gpu_in_host_form,
            "run_pixels",
            lambda self, pictures, target, mark: run_pixels(self, [each[::-1] for each in pictures], target, mark),
        )

    found = rightness.same_pixels("cuda")

    assert [(row["preprocess"], row["recipe"], row["pictures"]) for row in found] == [
        ("cuda", "resnet50", 3),
        ("cuda", "efficientnet-lite0", 3),
        ("cuda", "yolo", 1),
        ("cuda", "retinanet", 1),
    ]
    assert all((row["max_levels"] > 1) == wrong for row in found)
