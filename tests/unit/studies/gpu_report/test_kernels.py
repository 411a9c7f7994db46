"""What the GPU report makes of the kernels' commands, without a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from kernels import gpu
from kernels.host import HostDevice
from kernels.lab import bench, check, profiler
from kernels.lab.check import CaseResult
from kernels.lab.explain import CASES
from sut.studies.gpu_report import kernels as module


def test_the_report_names_what_was_launched_and_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the host form in the place of a GPU; the benchmark and the checks are cut short."""
    with HostDevice() as host:
        host.details = "a stand-in"  # type: ignore[attr-defined]
        monkeypatch.setattr(gpu, "GpuDevice", HostDevice)
        monkeypatch.setattr(gpu, "open_device", lambda name: host)
        monkeypatch.setattr(bench, "run", lambda device, repeats, rotation: iter(()))
        monkeypatch.setattr(profiler, "find_profiler", lambda: program_missing())
        rows = [CaseResult("a", "float32", "NCHW", "b", 0.0, True)]
        monkeypatch.setattr(check, "check", lambda device, truth: iter(rows))
        start = HostDevice.start

        found = module.kernels_ran()

        assert HostDevice.start is start
    assert found["device"] == "a stand-in"
    assert set(found["kernels"]) == {f"{case.module}.{case.kernel}" for case in CASES}
    assert {"lab/profiler.run_cases", "host/host_device.HostDevice.start"} <= set(found["functions"])

    rows[0] = CaseResult("a", "float32", "NCHW", "b", 1.0, False)
    with HostDevice() as host, pytest.raises(RuntimeError, match="1 of 1 cases differ from the oracle"):
        host.details = "a stand-in"  # type: ignore[attr-defined]
        module.kernels_ran()


def program_missing() -> Path:
    raise ModuleNotFoundError("no profiler")


def test_the_report_counts_equal_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"kernel": "a", "dtype": "uint8", "layout": "NCHW", "case": str(n), "ok": n > 0} for n in range(3)]
    monkeypatch.setattr(module, "rows_of", lambda *arguments: (3, rows, "checking on a GPU\n"))
    checked = module.kernels_check()

    assert (checked["a uint8 NCHW"], checked["cases"]) == ("2 of 3 equal", 3)
    assert [each["why"] for each in checked["wrong"]] == ["a: 0 differs from the oracle"]

    for code, found in ((0, []), (2, rows[1:])):
        monkeypatch.setattr(module, "rows_of", lambda *arguments, end=(code, found, ""): end)
        [wrong] = module.kernels_check()["wrong"]
        assert wrong["why"] == f"ended with {code}, {len(found)} cases"


def test_a_count_that_is_not_explained_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted = {"read_sectors_per_request": 4.0, "read_sectors": 8192, "conflicts": 0, "write_sectors": 8192}
    counted = {
        "read_sectors_per_request": 4.1,
        "read_sectors": 8200.0,
        "conflicts": 0.0,
        "write_sectors": None,
        "us": 1,
    }
    row = {"kernel": "a", "predicted": predicted, "counted": counted, "metrics": {"m": 1.0}}
    monkeypatch.setattr(module, "rows_of", lambda *arguments: (0, [row], "ncu on a GPU\n"))

    found = module.kernels_profile()

    assert found["cases"] == 2
    assert found["wrong"] == [{"why": "a: 8,192 read_sectors explained, 8,200 counted"}]
    [shown] = found["table"]
    assert (shown["conflicts, predicted"], shown["us, counted"], shown["us, predicted"]) == (0, 1, None)


@pytest.mark.parametrize(("code", "kind"), [(2, ModuleNotFoundError), (3, RuntimeError)])
def test_a_command_without_rows_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]) -> None:
    done = SimpleNamespace(returncode=code, stdout="", stderr="some words\nerror: no ncu\n")
    monkeypatch.setattr("sut.studies.gpu_report.child.run", lambda command: done)
    with pytest.raises(kind, match=f"^sut kernels profile ended with {code}: error: no ncu$"):
        module.kernels_profile()


def test_the_table_of_calls_has_medians_spreads_and_verdicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = {"ratio": 1.1, "low": 0.9, "high": 1.3, "pairs": 10, "verdict": "open", "pairs_needed": 99}
    took = {"median_ns": 5.0, "spread_ns": 1.0}
    row = {"call": "context", "naive": took, "tiled": took, "difference": judged, "naive_ns": [5.0], "tiled_ns": [5.0]}
    told = {"rows": [row], "findings": ["a sentence"], "nsys": {}, "why": "nsys is not installed"}
    monkeypatch.setattr(module, "told_by", lambda *arguments: (0, told, ""))
    monkeypatch.setattr(module.api, "prepare", lambda device, folder, side: {"naive": "orders"})
    monkeypatch.setattr(module.api, "kernel_ns", lambda device, side, passes: {})
    carried_out = []
    monkeypatch.setattr(module.api, "carry_out", carried_out.append)
    with HostDevice() as host:
        monkeypatch.setattr(gpu, "open_device", lambda name: host)
        found = module.kernels_api()

    assert list(found["table"][0].values()) == ["context", 5.0, 1.0, 5.0, 1.0, 1.1, 0.9, 1.3, "open"]
    assert (found["findings"], found["why"], carried_out) == (["a sentence"], "nsys is not installed", ["orders"])
    assert '"findings": ["a sentence"]' in capsys.readouterr().out, "it is kept, whatever comes of the rest"
