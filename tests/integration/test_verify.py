"""``sut verify``: a report of real runs is accepted, and one byte more or less in it is not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sut.errors import InputError
from sut.studies.gpu_report.schema import Report, read_report
from sut.studies.proof import archive
from sut.studies.proof.archive import MANIFEST, Packed, joined
from sut.studies.proof.bundle import bundle, opened
from sut.studies.proof.verify import verify
from tests.children import run_python
from tests.core import needs
from tests.integration import gpu_reports
from tests.integration.gpu_reports import CELL, GPU, NULL, TENSORRT

pytestmark = [needs("onnxruntime"), pytest.mark.slow]

LITE0 = f"results/{CELL.name}/.*Offline/performance/"
ON_GPU = f"results/{TENSORRT.name}/.*Offline/performance/"
SCORED = "results/labels_onnxruntime/.*/accuracy/"
SINGLE = "results/onnxruntime_lite0_fp32_jpeg_cuda/.*/"
OFFLINE = f"results/{NULL}/.*/Offline/performance/"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    gpu_reports.make(folder)
    return folder


@pytest.fixture(scope="module")
def archived(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(report, tmp_path_factory.mktemp("sent") / "report.zip").path


@pytest.fixture(scope="module")
def files(archived: Path) -> dict[str, bytes]:
    found, _, wrong = opened(archived, archived.read_bytes())
    assert wrong == []
    return found


def test_a_report_is_accepted_as_one_file_and_as_a_folder(report: Path, archived: Path, tmp_path: Path) -> None:
    for path in (archived, report):
        judged = verify(path)
        assert judged.findings == []
        assert (judged.results, judged.report is not None) == (8, True)
    place = next((report / "results" / CELL.name).rglob("result.json"))
    assert verify(place).accepted and verify(report / "results").accepted

    ended = run_python("-m", "sut", "verify", archived, "--json", cwd=tmp_path)

    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["accepted"], told["rows"], told["gpu"]) == (True, [], [gpu_reports.GPU])
    assert re.fullmatch("[0-9a-f]{64}", told["sha256"]) and told["targets"]


def test_the_same_folder_gives_the_same_bytes_and_no_name_of_this_machine(
    report: Path, archived: Path, tmp_path: Path
) -> None:
    again = bundle(report, tmp_path / "again.zip")

    assert again.path.read_bytes() == archived.read_bytes()
    names = [entry.name.decode() for entry in archive.split(archived.read_bytes())]
    assert MANIFEST in names and "report.json" in names
    assert not [name for name in names if name.startswith("/") or "report.html" in name or "results.json" in name]
    assert again.nbytes < 100_000


@dataclass(frozen=True, slots=True)
class Edit:
    """One byte, the last that ``where`` matches, of the one file that ``file`` does; ``field`` is to be named."""

    file: str
    where: str
    field: str

    def of(self, files: Mapping[str, bytes]) -> tuple[str, bytes]:
        [name] = [name for name in files if re.fullmatch(self.file, name)]
        content = files[name]
        found = re.search(self.where.encode(), content, re.DOTALL)
        assert found, f"{self.where} is not in {name}"
        at = found.end() - 1
        was = content[at : at + 1]
        other = b"x" if not was.isdigit() else b"2" if was == b"1" else b"1"
        return name, content[:at] + other + content[at + 1 :]


REPAIRED = [
    Edit(f"{LITE0}result.json", r'"value": \d', "metric.value"),
    Edit(f"{LITE0}result.json", r'"p99": \d', "latency_ns.p99"),
    Edit(f"{LITE0}result.json", r'"mean": \d+', "latency_ns.mean"),
    Edit(f"{LITE0}result.json", r'"samples": \d', "generated_samples_per_query|result_query_count|figures"),
    Edit(f"{LITE0}result.json", r'"queries": \d', "queries"),
    Edit(f"{LITE0}result.json", r'"duration_s": \d\.\d', "figures|duration_s"),
    Edit(f"{LITE0}result.json", r'"model": "\w', "model"),
    Edit(f"{LITE0}result.json", r'"model_sha256": "\w', "model_sha256"),
    Edit(f"{LITE0}result.json", r'"backend_version": "\d', "backend_version"),
    Edit(f"{LITE0}result.json", r'"python": "\d', "versions.python"),
    Edit(f"{LITE0}result.json", r'"time_s": 0\.\d', "config"),
    Edit(f"{LITE0}result.json", r'"cores": \d', r"system\.cores"),
    Edit(f"{LITE0}result.json", r'"started": "....-..-..T..:\d', "started"),
    Edit(f"{LITE0}result.json", r'"attested": .*?"precision": "f', "attested.precision"),
    Edit(f"{LITE0}result.json", r'"infer": \{\s+"mean": \d', "figures"),
    Edit(f"{LITE0}result.json", r'"interpolation": "\w', "recipe.interpolation"),
    Edit(f"{ON_GPU}result.json", r'"backend_version": "\d', "backend_version"),
    Edit(f"{ON_GPU}result.json", r'"attested": .*?"precision": "f', "attested.precision"),
    Edit(f"{ON_GPU}result.json", r'"device_name": "T', "device_name"),
    Edit(f"{ON_GPU}result.json", r'"p99": \d', "latency_ns.p99"),
    Edit(f"{SCORED}result.json", r'"accuracy": \{\s+"name": "top1",\s+"value": \d', "accuracy.value"),
    Edit(f"{SCORED}accuracy.txt", r"accuracy=\d", "accuracy"),
    Edit(f"{SCORED}mlperf_log_accuracy.json", r'"data" : "\w\w\w\w\w', "accuracy.value"),
    Edit(f"{SINGLE}mlperf_log_detail.txt", r'"result_90.00_percentile_latency_ns", "value": \d', "latency_ns.p90"),
    Edit(f"{SINGLE}mlperf_log_summary.txt", r"Max latency \(ns\) +: \d", r"Max latency \(ns\)"),
    Edit(f"{OFFLINE}mlperf_log_detail.txt", r'"requested_qsl_rng_seed", "value": \d', "requested_qsl_rng_seed"),
    Edit(f"{OFFLINE}mlperf_log_detail.txt", r'"result_validity", "value": "V', "result_validity"),
    Edit(f"{OFFLINE}mlperf_log_detail.txt", r'"power_end", "value": "..-..-.... ..:\d', "duration_s|power_end"),
    Edit(f"{OFFLINE}mlperf_log_accuracy.json", r"\[", "answers"),
    Edit("report.json", r'"measured":\s?\d', "targets.0.measured"),
    Edit("report.json", r'"verdict":\s?"m', "targets.0.verdict"),
    Edit("report.json", r'"gpus":.*?"name": "T', "gpu"),
    Edit("report.json", r'"took_s": 21\.5,\s+"limit_s": 9\d', "parts.kernels_check.limit_s"),
    Edit("report.json", r'"cases": \d', "parts.kernels_check.found.cases"),
    Edit("report.json", r'"resize_u8 uint8 NCHW": "\d', "parts.kernels_check.found.equal"),
    Edit("report.json", r'"gpu_ms": \d', "parts.kernels_bench.found.table.0.bytes_per_second"),
    Edit("report.json", r'"share_of_copy": \d\.\d', "parts.kernels_bench.found.table.0.share_of_copy"),
    Edit("report.json", r'"samples_per_second": \d', f"parts.{CELL.name}.found.samples_per_second"),
    Edit("report.json", r'"cell": .*?"backend": "\w', f"parts.{CELL.name}.found.cell.backend"),
    Edit("report.json", r'"versions": \{\s+"loadgen-vision-sut": "\d', "versions.loadgen-vision-sut"),
    Edit("report.json", r'"made": "\d', "started"),
    Edit("report.md", r"Tesla \w", "line \\d+"),
]
"""Edits that are found although the manifest was made again: by what the rest of the report says."""


@pytest.mark.parametrize("edit", REPAIRED, ids=lambda edit: f"{edit.file.rpartition('/')[2]}: {edit.field}")
@pytest.mark.parametrize("is_repaired", [True, False], ids=["repaired", "plain"])
def test_a_byte_that_is_edited_is_named(
    files: dict[str, bytes], archived: Path, tmp_path: Path, edit: Edit, is_repaired: bool
) -> None:
    name, content = edit.of(files)
    assert sum(a != b for a, b in zip(content, files[name], strict=True)) == 1
    forged = files | {name: content}

    findings = verify(repaired(tmp_path, forged) if is_repaired else as_it_was(tmp_path, archived, forged)).findings

    folder, _, file = name.rpartition("/")
    named = [each for each in findings if each.file.startswith(folder) and file in str(each)]
    assert [each for each in named if re.fullmatch(edit.field, each.field)], findings
    assert is_repaired or ("sha256", name) in [(each.field, each.file) for each in findings]


def repaired(folder: Path, files: Mapping[str, bytes]) -> Path:
    """These files with a manifest of their own, by the tool that makes one."""
    source = folder / "forged"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    return bundle(source, folder / "forged.zip").path


def as_it_was(folder: Path, archived: Path, files: Mapping[str, bytes]) -> Path:
    """These files with the manifest of others."""
    [manifest] = [each for each in archive.split(archived.read_bytes()) if each.is_stored]
    entries = [manifest, *(Packed.of(name, content) for name, content in files.items())]
    path = folder / "forged.zip"
    path.write_bytes(joined(sorted(entries, key=lambda entry: entry.name)))
    return path


def changed(report: Report, name: str, **values: Any) -> Report:
    """The same report with other values in one part."""
    part = report.parts[name].model_copy(update=values)
    return report.model_copy(update={"parts": {**report.parts, name: part}})


@pytest.mark.parametrize(
    ("change", "file", "field", "got"),
    [
        (lambda report: changed(report, CELL.name, ok=True, why=None), "result.json", "device", "cpu"),
        (lambda report: changed(report, CELL.name, took_s=0.1), "report.json", f"parts.{CELL.name}.took_s", "0.1"),
        (lambda report: changed(report, CELL.name, took_s=0.1), "result.json", "started", ""),
        (lambda report: changed(report, NULL, results=[]), "performance", "content", "a result that no part names"),
        (lambda report: changed(report, NULL, results=["results/x"]), "report.json", "parts.*.results", "results/x"),
        (lambda report: changed(report, NULL, left_out=True), "report.json", f"parts.{NULL}.left_out", "true"),
        (
            lambda report: changed(report, "kernels_check", found={"cases": 192, "wrong": []}),
            "report.json",
            "parts.kernels_check.found.equal",
            "0",
        ),
        (
            lambda report: changed(
                report, "kernels_bench", found={"table": [], "device": "Tesla T4 (sm_90) through CuPy"}
            ),
            "report.json",
            "parts.kernels_bench.found.device",
            "Tesla T4",
        ),
        (
            lambda report: changed(report, CELL.name, ok=True, why=None, results=[]),
            "report.json",
            f"parts.{CELL.name}.results",
            "0",
        ),
        (lambda report: report.model_copy(update={"made": "2020-01-01T00:00:00+00:00"}), "result.json", "started", ""),
        (lambda report: report.model_copy(update={"gpu": [GPU | {"name": "B200"}]}), "report.json", "gpu", ""),
    ],
)
def test_what_a_report_cannot_say_is_named(
    report: Path, tmp_path: Path, change: Callable[[Report], Report], file: str, field: str, got: str
) -> None:
    folder = tmp_path / "report"
    shutil.copytree(report, folder)
    gpu_reports.write(folder, change(read_report(folder)))

    findings = verify(folder).findings

    found = [each for each in findings if each.file.endswith(file) and each.field == field]
    assert found and re.match(got, found[0].got), findings


@pytest.mark.parametrize("name", ["gpu_ms", "wrong", "cases", "cell", "latency_ns"])
def test_what_a_part_has_found_may_be_anything(report: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "report"
    shutil.copytree(report, folder)
    text = (folder / "report.json").read_text()
    for other in ("7", '"x"', "null", "[1]", "{}"):
        forged = re.sub(rf'"{name}": *([^\s,{{\[]+|\{{[^}}]*\}}|\[[^]]*\])', f'"{name}": {other}', text)
        assert forged != text
        (folder / "report.json").write_text(forged)
        assert verify(folder).findings


@pytest.mark.parametrize("name", ["time_s", "lanes", "plan", "system", "utc", "config", "dataset", "count", "layout"])
def test_a_result_may_hold_anything(report: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "report"
    shutil.copytree(report / "results" / CELL.name, folder)
    [file] = folder.rglob("result.json")
    text = file.read_text()
    for other in ('"x"', "[1]", "{}", "-7"):
        file.write_text(
            re.sub(rf'"{name}": *([^\s,{{\[]+|\{{.*?\n \}}|\[[^]]*\])', f'"{name}": {other}', text, flags=re.DOTALL)
        )
        assert file.read_text() != text
        assert verify(folder).findings


@pytest.mark.parametrize("content", [b"", b"hello\n"])
def test_a_file_that_is_no_archive_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "it.zip").write_bytes(content)

    with pytest.raises(InputError, match=r"it\.zip is no zip archive; expected a file that sut report gpu has made"):
        verify(tmp_path / "it.zip")
