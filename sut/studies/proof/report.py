"""A report against the results that it is made of, and the rules by which this project makes one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sut.errors import one_line
from sut.mlperf.logs import DETAIL, read_detail
from sut.results.schema import FILE, Result, used
from sut.studies.gpu_report.page import markdown
from sut.studies.gpu_report.parts import PARTS
from sut.studies.gpu_report.schema import FILE as REPORT
from sut.studies.gpu_report.schema import PAGE, RESULTS, PartEnd, Report, read_report
from sut.studies.gpu_report.served import Cell
from sut.studies.gpu_report.targets import targets
from sut.studies.proof.cases import case_counts
from sut.studies.proof.finding import Finding, differing, found_by, named, told
from sut.studies.proof.result import judge
from sut.version import NAME

_ENDING_S = 60.0
"""What ending a part may take beyond its limit."""
_EQUAL = re.compile(r"(\d+) of (\d+) equal")
_ROUNDED = 1e-9
_HEADER = ("loadgen_", "sut_name", "qsl_name")
"""How entries begin in which LoadGen tells of itself."""
_NOT_THE_SAME = frozenset({"system.utc", "system.load_average", "system.gpus"})
"""Facts of a machine that change, or that are looked at elsewhere."""


def judge_report(root: Path, project: str | None, notes: list[str]) -> tuple[Report | None, list[Finding]]:
    """The report in ``root``, None where it is none, and what is wrong with it and the results below.

    ``project`` is the version that the manifest tells, None where there is no manifest; ``notes`` is told what could
    not be checked.
    """
    try:
        report = read_report(root)
    except ValidationError as error:
        return None, [_unfit(each) for each in error.errors()]
    except (OSError, ValueError) as error:
        return None, [Finding(REPORT, "content", one_line(error).replace(f"{root}/", ""), "a report")]
    results, found = _results(root, report, notes)
    found += found_by(
        REPORT,
        lambda: _page(root, report),
        lambda: _parts(report, results),
        lambda: _targets(report),
        lambda: _machine(report, results),
        lambda: _everywhere(root, report, results),
        lambda: _times(report, results),
        lambda: _served(report, results),
        lambda: _bench(report),
        lambda: _kernels(report),
    )
    if project is not None:
        found += differing(REPORT, {f"versions.{NAME}": report.versions.get(NAME)}, {f"versions.{NAME}": project})
    return report, found


def _unfit(error: Mapping[str, Any]) -> Finding:
    return Finding(REPORT, ".".join(map(str, error["loc"])) or "content", told(error["input"]), error["msg"])


def _results(root: Path, report: Report, notes: list[str]) -> tuple[dict[str, Result], list[Finding]]:
    """The results below ``root`` by their folders, each judged by itself; a report names all of them."""
    named = {name for part in report.parts.values() for name in part.results}
    there = {path.parent.relative_to(root).as_posix() for path in (root / RESULTS).rglob(FILE)}
    found = [Finding(REPORT, "parts.*.results", name, "a folder with a result.json") for name in sorted(named - there)]
    found += [
        Finding(name, "content", "a result that no part names", f"those of {REPORT}") for name in sorted(there - named)
    ]
    results: dict[str, Result] = {}
    for name in sorted(there):
        result, wrong = judge(root / name, name, notes)
        found += wrong
        if result is not None:
            results[name] = result
    return results, found


def _parts(report: Report, results: Mapping[str, Result]) -> Iterator[Finding]:
    """What a part says of itself, and whether it had the time for its runs."""
    order = [name for name in PARTS if name in report.parts]
    if order != list(report.parts):
        yield Finding(
            REPORT, "parts", told(", ".join(report.parts)), f"parts of this version: {told(', '.join(order))}"
        )
    for name, part in report.parts.items():
        field = f"parts.{name}"
        if part.ok == (part.why is not None):
            yield Finding(REPORT, f"{field}.why", told(part.why), "a reason where it is not ok, and only there")
        most = PARTS[name].limit_s if name in PARTS else part.limit_s
        if not 0 <= part.limit_s <= most:
            yield Finding(REPORT, f"{field}.limit_s", f"{part.limit_s:g}", f"0 to {most:g}")
        if not 0 <= part.took_s <= part.limit_s + _ENDING_S:
            yield Finding(REPORT, f"{field}.took_s", f"{part.took_s:g}", f"0 to {part.limit_s:g}, which is limit_s")
        if part.left_out and (part.took_s or part.found or part.results):
            yield Finding(REPORT, f"{field}.left_out", "true", "false, for what took time or found something")
        elsewhere = [each for each in part.results if not each.startswith(f"{RESULTS}/{name}/")]
        if elsewhere:
            yield Finding(REPORT, f"{field}.results", elsewhere[0], f"folders in {RESULTS}/{name}")
        ran = sum(results[each].duration_s or 0 for each in part.results if each in results)
        if ran > part.took_s:
            yield Finding(REPORT, f"{field}.took_s", f"{part.took_s:g}", f"{ran:.1f} or more, which its runs took")
        if part.ok and isinstance(part.found.get("cell"), Mapping):
            yield from _on_gpu(name, part, results)


def _on_gpu(name: str, part: PartEnd, results: Mapping[str, Result]) -> Iterator[Finding]:
    """A part that is a run and came to its end has one result, on a GPU, of what its name says."""
    right = Cell(**part.found["cell"]).name
    if right != name:
        yield Finding(REPORT, f"parts.{name}.found.cell", right, name)
    if len(part.results) != 1:
        yield Finding(REPORT, f"parts.{name}.results", f"{len(part.results)} results", "one")
    for each in part.results:
        if each in results and not results[each].device.startswith("cuda"):
            yield Finding(f"{each}/{FILE}", "device", results[each].device, f"a GPU, as parts.{name} asks for")


def _page(root: Path, report: Report) -> Iterator[Finding]:
    """The page for people says what the report says."""
    got = (root / PAGE).read_text(encoding="utf-8", errors="replace") if (root / PAGE).is_file() else ""
    for number, (line, right) in enumerate(zip_longest(got.split("\n"), markdown(report).split("\n")), 1):
        if line != right:
            yield Finding(PAGE, f"line {number}", told(line), f"{told(right)}, by {REPORT}")
            return


def _targets(report: Report) -> Iterator[Finding]:
    right = [target.row() for target in targets(report.found)]
    if len(right) != len(report.targets):
        yield Finding(REPORT, "targets", f"{len(report.targets)} rows", f"{len(right)}")
    for number, (got, expected) in enumerate(zip(report.targets, right, strict=False)):
        for each in differing(REPORT, got, expected):
            yield Finding(REPORT, f"targets.{number}.{each.field}", each.got, f"{each.expected}, by the parts")
        if set(got) != set(expected):
            yield Finding(REPORT, f"targets.{number}", told(", ".join(got)), told(", ".join(expected)))


def _machine(report: Report, results: Mapping[str, Result]) -> Iterator[Finding]:
    """One kind of GPU made it all."""
    names = [name for gpu in report.gpu if (name := gpu.get("name"))]
    part = report.parts.get("gpu")
    if part is not None and part.ok and part.found.get("gpus") != report.gpu:
        yield Finding(REPORT, "gpu", told(report.gpu), f"{told(part.found.get('gpus'))} (parts.gpu)")
    for name, part in report.parts.items():
        device = part.found.get("device")
        if isinstance(device, str) and not any(_is_of(gpu, device) for gpu in report.gpu):
            yield Finding(REPORT, f"parts.{name}.found.device", told(device), f"{told(report.gpu)} (gpu)")
    for folder, result in results.items():
        file = f"{folder}/{FILE}"
        on_gpu = result.device.startswith("cuda")
        # A part of a GPU has the GPU's name, and what part it is, behind that: NVIDIA A100 MIG 1g.5gb.
        if on_gpu and result.device_name is not None and not result.device_name.startswith(tuple(names)):
            yield Finding(file, "device_name", result.device_name, f"{told(names)} ({REPORT}, gpu)")
        for use in result.gpus or ():
            if not use.name.startswith(tuple(names)):
                yield Finding(file, f"gpus.{use.device}", told(use.name), f"{told(names)} ({REPORT}, gpu)")
        gpus = result.system.get("gpus")
        if gpus is not None and not {*names} <= {*gpus}:  # in a container the driver's files tell of others, too
            yield Finding(file, "system.gpus", told(gpus), f"{told(names)} ({REPORT}, gpu)")


def _is_of(gpu: Mapping[str, str], device: str) -> bool:
    """Whether a line about a device is of this GPU, and of its architecture if it tells that."""
    architecture = f"sm_{gpu.get('compute_cap', '').replace('.', '')}"
    return gpu.get("name", "") in device and (architecture in device or "sm_" not in device)


def _everywhere(root: Path, report: Report, results: Mapping[str, Result]) -> Iterator[Finding]:
    """Machine, packages and LoadGen are the same in all results and in the report; who differs from most is named.

    A package that a file does not tell is no difference: those of a model are told where that is run.
    """
    facts = {REPORT: named("system", report.machine) | named("versions", report.versions)}
    for name, result in results.items():
        facts[f"{name}/{FILE}"] = named("system", result.system) | named("versions", result.versions)
        facts[f"{name}/{DETAIL}"] = _header(root / name)
    for name in sorted({name for each in facts.values() for name in each} - _NOT_THE_SAME):
        of_machine = name.startswith("system.")
        told_by = {
            file: each.get(name)
            for file, each in facts.items()
            if name in each or (of_machine and not file.endswith(DETAIL))
        }
        most, count = Counter(map(repr, told_by.values())).most_common(1)[0]
        if 2 * count <= len(told_by):
            continue
        for file, value in told_by.items():
            if repr(value) != most:
                field = name.replace("system.", "machine.") if file == REPORT else name
                yield Finding(file, field, told(value), f"{told(most)}, as in {count} of {len(told_by)} files")


def _header(folder: Path) -> dict[str, Any]:
    """What a log says of LoadGen itself."""
    try:
        values = read_detail(folder).values
    except ValueError:
        return {}
    return {key: value for key, value in values.items() if key.startswith(_HEADER)}


def _times(report: Report, results: Mapping[str, Result]) -> Iterator[Finding]:
    """Results were made in the time that their parts took, before the report's end: some parts may be kept from an
    earlier one.
    """
    made, took = _seconds(report.made), sum(part.took_s for part in report.parts.values())
    if made is None:
        yield Finding(REPORT, "made", told(report.made), "a time, ISO 8601, with its zone")
        return
    for part in report.parts.values():
        for folder in part.results:
            result = results.get(folder)
            begun, done = (_seconds(result.started), _seconds(result.system.get("utc"))) if result else (None, None)
            if result is None or begun is None or done is None:
                continue
            times = f"{result.started} to {told(result.system.get('utc'))}"
            if not 0 <= done - begun <= part.took_s + 1:  # both are cut to seconds
                yield Finding(
                    f"{folder}/{FILE}", "started", times, f"within the {part.took_s:g} s of its part ({REPORT})"
                )
            if done > made + took + _ENDING_S:
                yield Finding(f"{folder}/{FILE}", "started", times, f"{told(report.made)} and {took:.0f} s ({REPORT})")


def _seconds(text: object) -> float | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time.timestamp() if time.tzinfo is not None else None


def _served(report: Report, results: Mapping[str, Result]) -> Iterator[Finding]:
    """What a part tells of its run is what the run's result says."""
    for name, part in report.parts.items():
        if not isinstance(part.found.get("cell"), Mapping) or len(part.results) != 1:
            continue
        result = results.get(part.results[0])
        if result is None:
            continue
        options = _at(result.config, "backend_options")
        options = options if isinstance(options, Mapping) else {}
        option = ",".join(f"{key}={str(value).lower()}" for key, value in options.items())
        batch = _at(result.config, "max_batchsize") if part.found["cell"].get("batch") else None
        more = {"used": used(result), "option": option, "fold": _at(result.config, "fold"), "batch": batch}
        facts = result.model_dump(mode="json") | more
        told_of = {key: value for key, value in part.found.items() if key in facts}
        got = _leaves("", {**told_of, "cell": part.found["cell"]})
        right = {key: _at(facts, key.removeprefix("cell.")) for key in got}
        for each in differing(REPORT, got, right):
            field = f"parts.{name}.found.{each.field}"
            yield Finding(REPORT, field, each.got, f"{each.expected} ({part.results[0]}/{FILE})")


def _leaves(prefix: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """What is in mappings within each other, by names with dots."""
    found: dict[str, Any] = {}
    for key, each in value.items():
        found |= _leaves(f"{prefix}{key}.", each) if isinstance(each, Mapping) else {f"{prefix}{key}": each}
    return found


def _at(facts: Mapping[str, Any], name: str) -> Any:
    """What has that name with dots; None for nothing."""
    found: Any = facts
    for key in name.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _bench(report: Report) -> Iterator[Finding]:
    """Rates and shares of the kernels' times, by the bytes and times beside them."""
    part = report.parts.get("kernels_bench")
    rows = part.found.get("table") if part is not None and part.ok else None
    if not isinstance(rows, list) or not rows:
        return
    copy = _rate(rows[0])
    for number, row in enumerate(rows):
        rate = _rate(row)
        right = {"bytes_per_second": rate, "share_of_copy": rate / copy if rate and copy else None}
        for key, expected in right.items():
            got = row.get(key) if isinstance(row, Mapping) else None
            same = got == expected or (got and expected and math.isclose(got, expected, rel_tol=_ROUNDED))
            if not same:
                field = f"parts.kernels_bench.found.table.{number}.{key}"
                yield Finding(REPORT, field, told(got), f"{told(expected)}, by bytes and gpu_ms")


def _rate(row: Any) -> float | None:
    """Bytes per second of a row; None where it has no time."""
    if not isinstance(row, Mapping) or not row.get("gpu_ms"):
        return None
    return 1e3 * float(row.get("bytes") or 0) / float(row["gpu_ms"])


def _kernels(report: Report) -> Iterator[Finding]:
    """The kernels were checked in all cases that this version makes, and those that are not wrong were equal."""
    for part in ("kernels_check", "kernels_check_pycuda"):
        end = report.parts.get(part)
        if end is None or not end.ok:
            continue
        counts, field = case_counts(), f"parts.{part}.found"
        wrong = end.found.get("wrong")
        equal = 0
        for name, count in counts.items():
            text = end.found.get(name)
            found = _EQUAL.fullmatch(text) if isinstance(text, str) else None
            if found is None or int(found[2]) != count:
                yield Finding(REPORT, f"{field}.{name}", told(text), f"... of {count} equal, the cases of this version")
            equal += int(found[1]) if found else 0
        right = counts.total() - (len(wrong) if isinstance(wrong, list) else 0)
        got = {"cases": end.found.get("cases"), "equal": equal}
        for each in differing(REPORT, got, {"cases": counts.total(), "equal": right}):
            yield Finding(REPORT, f"{field}.{each.field}", each.got, f"{each.expected}, the cases of this version")
