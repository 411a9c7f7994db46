"""From the folder of a report to the one file that can be sent, and back to its files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from plugins.files import read_file, whole_file
from sut.errors import InputError, reason_of, short, writing
from sut.mlperf.logs import TRACE
from sut.mlperf.reference_results import REFERENCE_FILE
from sut.results.schema import dump_json
from sut.studies.gpu_report.schema import FILE as REPORT
from sut.studies.gpu_report.schema import PAGE, RESULTS
from sut.studies.proof.archive import (
    MANIFEST,
    MOST_BYTES,
    MOST_FILE_BYTES,
    MOST_FILES,
    MOST_UNPACKED_BYTES,
    Packed,
    joined,
    split,
    unpacked,
)
from sut.studies.proof.finding import Finding, differing, told
from sut.version import own_version, source_sha256

SCHEMA = 1
"""Of the manifest."""
_KEPT = (".json", ".md", ".txt", ".log", ".csv")
_LEFT_OUT = frozenset({REFERENCE_FILE, TRACE, MANIFEST})
"""Files that a result's own makes again, LoadGen's trace, whose figures its log has, and what is made here."""
_OURS = f"{REPORT}, {PAGE} and what is in {RESULTS}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file that was written, and what it is known by."""

    path: Path
    nbytes: int
    digest: str
    """Its SHA-256."""
    files: int


def bundle(folder: Path, target: Path) -> Bundle:
    """Write ``target``: what a report has left in ``folder``, with a manifest. The same folder gives the same bytes.

    Of the folder go the report and what is in ``results/``: no pages that results make again, nothing behind links, no
    hidden files, and nothing else that somebody keeps there. Raises ``InputError`` where it is no report's folder, what
    is in it is too much to be sent, or ``target`` cannot be written.
    """
    files = dict(_read(folder))
    if REPORT not in files:
        raise InputError(f"{folder} has no {REPORT}; name a folder that sut report gpu has written")
    packed = {name: Packed.of(name, content) for name, content in files.items()}
    entries = [*packed.values(), Packed.of(MANIFEST, _manifest(files, packed).encode())]
    data = joined(sorted(entries, key=lambda entry: entry.name))
    if len(data) > MOST_BYTES:
        largest = max(packed.values(), key=lambda entry: len(entry.data))
        raise InputError(
            f"{folder} makes a file of {short(len(data) / 1e6)} MB, expected {short(MOST_BYTES / 1e6)} at the most, "
            f"which can be attached to an issue; the largest in it is {largest.name.decode()}"
        )
    with writing(target), whole_file(target) as file:
        file.write(data)
    return Bundle(target, len(data), sha256(data).hexdigest(), len(files))


def _read(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what is kept of a folder."""
    count = size = 0
    for path in sorted([folder / REPORT, folder / PAGE, *(folder / RESULTS).rglob("*")]):
        name = path.relative_to(folder)
        plain = path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in name.parts)
        if not plain or path.suffix not in _KEPT or path.name in _LEFT_OUT:
            continue
        try:
            content = read_file(path, MOST_FILE_BYTES)
        except OSError as error:
            raise InputError(f"{path}: {reason_of(error)}; a report is sent whole or not at all") from error
        count, size = count + 1, size + len(content)
        if count > MOST_FILES or size > MOST_UNPACKED_BYTES:
            raise InputError(
                f"{folder} has more than {MOST_FILES:,} files or {short(MOST_UNPACKED_BYTES / 1e6)} MB to send; give "
                "sut report gpu a folder of its own"
            )
        yield name.as_posix(), content


def opened(path: Path, data: bytes) -> tuple[dict[str, bytes], dict[str, Any], list[Finding]]:
    """The files of an archive, its manifest, and where they are not what the manifest says or this project makes."""
    files, found = unpacked(path.name, data)
    text = files.pop(MANIFEST, b"").decode(errors="replace")
    try:
        manifest = json.loads(text)
        sound = dump_json(manifest) == text and manifest["schema"] == SCHEMA and isinstance(manifest["files"], dict)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        return files, {}, [*found, Finding(MANIFEST, "schema", told(text[:40] or None), f"a manifest of {SCHEMA}")]
    expected = {
        "packed_sha256": _sum_of({entry.name.decode(errors="replace"): entry for entry in split(data)}),
        "source_sha256": source_sha256(),
    }
    found += [Finding(name, "content", "a file that no report has", _OURS) for name in files if not _is_ours(name)]
    found += _sums(files, manifest["files"])
    for each in differing(MANIFEST, manifest, expected):
        other = each.field == "source_sha256"
        hint = f", or another version made it: {told(manifest.get('project'))}, and can judge it" if other else ""
        found.append(replace(each, expected=each.expected + hint))
    return files, manifest, found


def _is_ours(name: str) -> bool:
    return name in (REPORT, PAGE) or name.startswith(f"{RESULTS}/")


def _sums(files: Mapping[str, bytes], sums: Mapping[str, Any]) -> Iterator[Finding]:
    for name in sorted({*files, *sums}):
        if name not in files:
            yield Finding(name, "content", "no such file", f"that of {MANIFEST}")
        elif not isinstance(sums.get(name), dict):
            yield Finding(name, "content", "a file that is not listed", f"those of {MANIFEST}")
        else:
            content = files[name]
            yield from differing(name, sums[name], {"bytes": len(content), "sha256": sha256(content).hexdigest()})


def _manifest(files: Mapping[str, bytes], packed: Mapping[str, Packed]) -> str:
    sums = {name: {"bytes": len(files[name]), "sha256": sha256(files[name]).hexdigest()} for name in sorted(files)}
    return dump_json(
        {
            "schema": SCHEMA,
            "project": own_version(),
            "source_sha256": source_sha256(),
            "packed_sha256": _sum_of(packed),
            "files": sums,
        }
    )


def _sum_of(packed: Mapping[str, Packed]) -> str:
    """Of all files as they were compressed: that can be changed without their content, by a bit that means nothing."""
    return sha256(b"".join(packed[name].data for name in sorted(packed) if name != MANIFEST)).hexdigest()
