"""The file of a report: its bytes, and what somebody may have put into it."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sut.errors import InputError
from sut.mlperf.logs import Detail
from sut.studies.proof import archive
from sut.studies.proof import bundle as bundling
from sut.studies.proof.archive import MANIFEST, Packed, joined, split, unpacked
from sut.studies.proof.bundle import bundle, opened
from sut.studies.proof.cases import case_counts
from sut.studies.proof.finding import Finding
from sut.studies.proof.result import _duration
from sut.version import source_sha256
from tests.children import run_python

FILES = {"report.json": '{"schema": 3}\n', "results/part/model/log.txt": "line\n" * 300, "report.md": "# It\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "report"
    for name, text in FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


@pytest.fixture
def data(folder: Path, tmp_path: Path) -> bytes:
    return bundle(folder, tmp_path / "report.zip").path.read_bytes()


def found_in(data: bytes) -> list[Finding]:
    return opened(Path("report.zip"), data)[2]


def packed(**files: bytes) -> bytes:
    return joined([Packed.of(name, content) for name, content in sorted(files.items())])


def test_it_is_a_zip_file_for_everybody_else(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.testzip() is None
        assert {name: file.read(name).decode() for name in FILES} == FILES
        manifest = json.loads(file.read(MANIFEST))
    assert set(manifest["files"]) == set(FILES) and manifest["project"] and manifest["source_sha256"]


def test_links_hidden_files_and_pages_stay_at_home(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("mine")
    (folder / "results" / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "results" / "away").symlink_to(tmp_path)
    for name in (".hidden.json", "report.html", "results.json", "core", "model.onnx"):
        (folder / "results" / name).write_text("mine")

    sent = split(bundle(folder, tmp_path / "report.zip").path.read_bytes())

    assert {entry.name.decode() for entry in sent} == {*FILES, MANIFEST}


def test_what_somebody_keeps_beside_a_report_stays_at_home_and_is_named_in_an_archive(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "letters").mkdir()
    for name in ("notes.txt", "letters/mine.md", "other.json"):
        (folder / name).write_text("mine")

    sent = bundle(folder, tmp_path / "report.zip").path.read_bytes()

    assert {entry.name.decode() for entry in split(sent)} == {*FILES, MANIFEST}
    monkeypatch.setattr(bundling, "RESULTS", "letters")
    names = [each.file for each in found_in(sent)]
    assert names == ["results/part/model/log.txt"]


def test_every_bit_of_a_file_counts(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_in(data) == []
    source = source_sha256()
    monkeypatch.setattr(bundling, "source_sha256", lambda: source)
    unfound = []
    for at in range(len(data)):
        for bit in range(8):
            edited = bytearray(data)
            edited[at] ^= 1 << bit
            if not found_in(bytes(edited)):
                unfound.append((at, bit))
    assert unfound == []


@pytest.mark.parametrize(
    ("field", "file"),
    [("source_sha256", MANIFEST), ("packed_sha256", MANIFEST), ("schema", MANIFEST), ("sha256", "report.json")],
)
def test_a_manifest_that_tells_something_else_is_named(data: bytes, field: str, file: str) -> None:
    entries = split(data)
    [at] = [number for number, entry in enumerate(entries) if entry.is_stored]
    manifest = json.loads(entries[at].data)
    manifest["files"].get(file, manifest)[field] = 7
    entries[at] = Packed.of(MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())

    [found] = found_in(joined(entries))

    assert (found.file, found.field) == (file, field)


def test_another_version_of_the_code_is_told_which_can_judge(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundling, "source_sha256", lambda: "0" * 64)

    [found] = found_in(data)

    assert (found.file, found.field) == (MANIFEST, "source_sha256")
    assert "another version made it: 0.1.0" in found.expected


@pytest.mark.parametrize(
    "name", ["../up.json", "/etc/up.json", "a/../../up.json", "a//b", "a\\b", "C:up", "", "a/.", "a\nb"]
)
def test_a_name_that_leads_elsewhere_is_no_file(name: str) -> None:
    files, found = unpacked("x.zip", joined([Packed.of(name, b"content")]))

    assert files == {}
    assert [each.file for each in found] == [name]


def test_a_file_in_the_place_of_a_folder_is_no_file() -> None:
    files, found = unpacked("x.zip", packed(**{"a": b"1", "a/b": b"2"}))

    assert files == {"a": b"1"} and [each.file for each in found] == ["a/b"]


def lying(data: bytes) -> bytes:
    """Of a file that becomes a gigabyte, and says that it is small."""
    return joined([replace(entry, size=100) for entry in split(data)])


def linking(data: bytes) -> bytes:
    """A link, as other programs would make one."""
    return data.replace(struct.pack("<L", 0o100644 << 16), struct.pack("<L", 0o120777 << 16))


def hiding(data: bytes) -> bytes:
    """A second file, which only the directory has, or only who reads on from the first."""
    [entry] = split(data)
    return entry.local() + Packed.of("b", b"other").local() + joined([entry])[len(entry.local()) :]


@pytest.mark.parametrize("forge", [lying, linking, hiding, lambda data: data + b"more", lambda data: b"GIF" + data])
def test_an_archive_that_is_not_as_this_project_writes_it_is_none(forge: Callable[[bytes], bytes]) -> None:
    found = unpacked("x.zip", forge(packed(a=b"\0" * 1_000_000)))[1]

    assert found


def test_what_would_be_too_much_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = Packed(b"a", 2**32 - 1, 0, zlib.compress(b"")[2:-4])
    assert unpacked("x.zip", joined([bomb]))[0] == {}

    monkeypatch.setattr(archive, "MOST_FILES", 2)
    files, [found] = unpacked("x.zip", packed(a=b"", b=b"", c=b""))
    assert (files, found.field) == ({}, "files")


def test_what_cannot_be_sent_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"has no report\.json; name a folder"):
        bundle(folder / "results", tmp_path / "x.zip")
    monkeypatch.setattr(bundling, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="the largest in it is"):
        bundle(folder, tmp_path / "x.zip")
    monkeypatch.setattr(bundling, "MOST_FILES", 1)
    with pytest.raises(InputError, match="more than 1 files"):
        bundle(folder, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_cases_are_those_of_the_check(tmp_path: Path) -> None:
    counts = case_counts()

    assert counts.total() > 150 and counts["copy_linear_f32 float32 vector"] == 1


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("none.zip", 1, "No such file"), ("text.zip", 1, "no zip archive"), ("empty", 1, "neither")],
)
def test_what_is_no_report_ends_with_a_line(tmp_path: Path, name: str, code: int, said: str) -> None:
    (tmp_path / "text.zip").write_text("hello")
    (tmp_path / "empty").mkdir()

    ended = run_python("-m", "sut", "verify", name, cwd=tmp_path)

    assert ended.code == code and said in ended.out + ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("end", "seconds", "field"),
    [
        ("11-01-2026 02:00:10.000", 20.0, None),
        ("11-01-2026 02:00:10.000", 3620.0, "duration_s"),
        ("11-01-2026 01:59:50.000", 0.0003, None),
        ("11-01-2026 01:59:50.000", 20.0, "duration_s"),
        ("11-01-2026 01:59:40.000", 20.0, "power_end"),
        (None, 20.0, "power_end"),
    ],
)
def test_a_run_is_as_long_as_its_log_says_in_any_time_zone(
    monkeypatch: pytest.MonkeyPatch, end: str | None, seconds: float, field: str | None
) -> None:
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")  # whose clocks go back an hour at that second
    time.tzset()
    detail = Detail({"power_begin": "11-01-2026 01:59:50.000", "power_end": end}, ())
    result: Any = SimpleNamespace(duration_s=seconds)

    try:
        found = [each.field for each in _duration(result, detail, "run")]
    finally:
        monkeypatch.undo()
        time.tzset()

    assert found == ([field] if field else [])
