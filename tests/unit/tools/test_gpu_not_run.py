"""The page of what ran on hardware: nothing that needs a GPU is forgotten, and only accepted reports count."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.children import CHECKOUT, load_tool

GPU = {"name": "Tesla T4", "driver_version": "550.54.15", "compute_cap": "7.5"}
TARGETS = [{"target": name, "verdict": verdict} for name, verdict in (("a", "met"), ("b", "NOT MET"), ("c", "met"))]
RAN = {
    "kernels_ran": {"kernels": ["resize.resize_f32"], "functions": ["gpu.open_device"]},
    "preprocess_ran": {"functions": ["preprocess.cuda.OnDevice.run", "sut.qsl.device_library._DeviceGather.fill"]},
}


@pytest.fixture(scope="module")
def listing() -> ModuleType:
    return load_tool("gpu_not_run")


def write_report(folder: Path, *, is_accepted: bool = True, ok: bool = True, made: str = "2026-12-01T10:00:00") -> None:
    folder.mkdir()
    parts: dict[str, Any] = {name: {"ok": ok, "found": found} for name, found in RAN.items()}
    report = {"made": "2026-12-01T10:00:00", "gpu": [GPU], "parts": parts}
    verified = {"accepted": is_accepted, "sha256": "ab" * 32, "made": made, "gpu": [GPU], "targets": TARGETS}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "verified.json").write_text(json.dumps(verified | {"installed": ["numpy", "cupy-cuda12x"]}))


def test_the_page_is_up_to_date(listing: ModuleType) -> None:
    written = (CHECKOUT / "docs/gpu/README.md").read_text(encoding="utf-8")
    assert written == listing.page(), "run tools/gpu_not_run.py"


def test_a_new_file_that_needs_a_gpu_is_found(listing: ModuleType, tmp_path: Path) -> None:
    texts = {
        "backends/new.py": "import cupy\n",
        "plugins/open.py": "import ctypes\n\nctypes.CDLL('libcuda.so.1')\n",
        "preprocess/by_name.py": "from importlib import import_module\n\nimport_module('nvidia.dali')\n",
        "sut/run/ours.py": "from kernels import gpu\n",
        "kernels/gpu_new.py": "",
        "sut/run/other.py": "from kernels import compile\n\n'a GPU'\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert set(listing.gpu_files(tmp_path)) == set(texts) - {"sut/run/other.py"}


def test_what_is_not_listed_has_a_reason_that_is_still_needed(listing: ModuleType) -> None:
    files = listing.gpu_files()

    unused = [each for each in listing.RUN_ANYWHERE if not any(file.startswith(each) for file in files)]
    assert unused == []


def test_every_function_with_a_body_is_listed_but_those_of_dali_on_the_cpu(listing: ModuleType) -> None:
    listed = {each.file: each.names for each in listing.listed() if each.file.endswith(".py")}

    assert {"OnDevice._compute", "OnGpu.__init__", "_described"} <= set(listed["preprocess/cuda.py"])
    decoders = listed["preprocess/parts/gpu_decode.py"]
    assert "GpuDecoder.decode" in decoders and "NvImageCodec.check" in decoders
    assert "GpuDecoder.check" not in decoders, "abstract: nobody calls it"
    dali = listed["preprocess/dali.py"]
    assert {"Pipeline.run", "resize_graph", "regions"} <= set(dali)
    assert not any(name.startswith(("Dali", "_Decoder")) for name in dali)
    for file, names in listed.items():
        text = (CHECKOUT / file).read_text(encoding="utf-8")
        assert len(set(names)) == len(names), file
        assert all(f"def {name.rpartition('.')[2]}(" in text for name in names), file


def test_a_report_that_is_accepted_is_a_line_and_shortens_the_list(listing: ModuleType, tmp_path: Path) -> None:
    write_report(tmp_path / "t4")
    empty, page = listing.page(tmp_path / "none"), listing.page(tmp_path)

    assert (
        f"| [Tesla T4](t4/report.md) | sm_75 | 550.54.15, CUDA 12 | 2026-12-01 | `{'ab' * 32}` |"
        " 2 of 3 met<br>NOT MET: b |\n"
    ) in page
    for name in ("resize_f32", "open_device", "OnDevice.run", "_DeviceGather.fill"):
        assert f"`{name}`" in empty and f"`{name}`" not in page
    assert "`OnDevice.run_pixels`" in page and "- `kernels/resize.cu`, 2 of 3: `resize_f16`, `resize_u8`\n" in page
    assert "None yet." in empty and "None yet." not in page


@pytest.mark.first(1)
@pytest.mark.parametrize("odd", [{"is_accepted": False}, {"made": "another"}])
def test_any_other_report_changes_nothing(listing: ModuleType, tmp_path: Path, odd: dict[str, Any]) -> None:
    write_report(tmp_path / "t4", **odd)

    assert listing.page(tmp_path) == listing.page(tmp_path / "none")


def test_a_part_that_did_not_end_well_has_run_nothing(listing: ModuleType, tmp_path: Path) -> None:
    write_report(tmp_path / "t4", ok=False)

    assert "`open_device`" in listing.page(tmp_path)
