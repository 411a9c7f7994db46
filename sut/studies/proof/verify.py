"""The judgement of what somebody else has measured: a report's file or folder, results below a folder, one result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from plugins.files import read_file
from sut.errors import InputError, reason_of
from sut.results.schema import FILE
from sut.studies.gpu_report.schema import FILE as REPORT
from sut.studies.gpu_report.schema import Report
from sut.studies.proof.archive import MOST_BYTES
from sut.studies.proof.bundle import opened
from sut.studies.proof.finding import Finding
from sut.studies.proof.report import judge_report
from sut.studies.proof.result import judge

NO_MANIFEST = "a folder has no manifest, so nothing tells whether it was changed since"


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of judging a file or folder. ``digest`` is the SHA-256 of a file."""

    path: Path
    findings: list[Finding]
    notes: list[str]
    report: Report | None = None
    results: int = 0
    digest: str | None = None
    project: str | None = None
    """The version that made it, by its manifest."""

    @property
    def accepted(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def facts(self) -> dict[str, Any]:
        """What it is, and of which GPU, beside its findings."""
        report = self.report
        return {
            "accepted": self.accepted,
            "file": self.path.name,
            "sha256": self.digest,
            "project": self.project,
            "made": report and report.made,
            "gpu": report.gpu if report else [],
            "installed": [name for name, version in report.versions.items() if version] if report else [],
            "targets": report.targets if report else [],
            "results": self.results,
            "notes": self.notes,
        }


def verify(path: Path) -> Judged:
    """Judge what is at ``path``, of which nothing is trusted and nothing is run.

    Raises ``InputError`` where nothing is there that could be judged.
    """
    if path.is_dir():
        return _folder(path)
    notes: list[str] = []
    if path.name == FILE:
        _, found = judge(path.parent, _name_of(path.parent), notes)
        return Judged(path, found, [NO_MANIFEST, *notes], results=1)
    try:
        data = read_file(path, MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}; expected a file that sut report gpu has made") from error
    if b"PK\5\6" not in data:  # how the end of any zip archive is found
        raise InputError(f"{path} is no zip archive; expected a file that sut report gpu has made")
    files, manifest, found = opened(path, data)
    with _written(files) as (root, unwritten):
        project = manifest.get("project")
        report, wrong = judge_report(root, project if isinstance(project, str) else None, notes)
        count = len(list(root.rglob(FILE)))
    return Judged(path, [*found, *unwritten, *wrong], notes, report, count, sha256(data).hexdigest(), project)


def _folder(path: Path) -> Judged:
    notes = [NO_MANIFEST]
    if (path / REPORT).exists():
        report, found = judge_report(path, None, notes)
        return Judged(path, found, notes, report, len(list(path.rglob(FILE))))
    places = sorted(each.parent for each in path.rglob(FILE))
    if not places:
        raise InputError(f"{path} has neither {REPORT} nor a {FILE} below it; name what sut report gpu or sut run left")
    found = [each for place in places for each in judge(place, place.relative_to(path).as_posix(), notes)[1]]
    return Judged(path, found, notes, results=len(places))


def _name_of(folder: Path) -> str:
    return "/".join(folder.absolute().parts[-2:])


@contextmanager
def _written(files: Mapping[str, bytes]) -> Iterator[tuple[Path, list[Finding]]]:
    """The files of an archive in a folder that is gone when the ``with`` ends, and those that cannot lie there."""
    unwritten = []
    with TemporaryDirectory(prefix="sut-verify-") as folder:
        root = Path(folder)
        for name, content in files.items():
            try:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                with (root / name).open("xb") as file:
                    file.write(content)
            except OSError as error:
                unwritten.append(Finding(name, "content", reason_of(error), "a file that can be written"))
        yield root, unwritten
