"""``sut doctor``: what is installed, which execution providers really work, and how to get what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import packages_distributions
from itertools import groupby
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING

from plugins.cache import cache_dir
from plugins.packages import CHECKOUT, IS_CHECKOUT, OWN_NAMES, REINSTALL
from sut.cli.doctor.gpus import check_libraries, check_nvidia, look_through_libraries, shown_gpus
from sut.cli.doctor.installed import (
    Check,
    Status,
    check_cuda,
    check_gpu_packages,
    check_packages,
    check_tools,
    driver_cuda,
    gpu_build,
    usable_cuda,
    version_of,
)
from sut.cli.emit import emit, grid, prose
from sut.errors import ExitCode, one_line
from sut.process.cgroup import memory_limit, read_text
from sut.results.machine import CPU_FEATURES, container, cpu_facts
from sut.results.quiet import between, look
from sut.run.energy.rapl import POWERCAP, counters, unreadable
from sut.version import NAME

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

PYTHONS = ((3, 11), (3, 13))
"""The oldest and the newest supported Python."""
LOW_DISK_BYTES = 2**30
PROBE_LIMIT_S = 60.0
LOOK_S = 0.5

TINY_MODEL = bytes.fromhex(
    "08083a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)
"""An ONNX model of one node, y = Add(x, x), float32 [1]: providers can be tried without the onnx package."""

# A provider in get_available_providers() was compiled in, no more; and a session that has it may run every node on the
# CPU all the same, unless that is forbidden.
PROBE = """
import json, sys
import onnxruntime as ort
ort.set_default_logger_severity(4)
model = bytes.fromhex(sys.argv[1])
def trouble(provider):
    got = ort.InferenceSession(model, providers=[provider], enable_fallback=0).get_providers()
    if provider not in got:
        return "does not load: the session got " + ", ".join(got)
    if provider == "CPUExecutionProvider":
        return ""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
    except Exception as error:
        if "fallback to CPU EP" in str(error):
            return "loads, but leaves the work to the CPU"
        raise
    return ""
for provider in ort.get_available_providers():
    if provider not in sys.argv[2:]:
        print(json.dumps({"provider": provider, "trouble": None}), flush=True)
        try:
            found = trouble(provider)
        except Exception as error:
            found = "fails: " + " ".join(str(error).split())[:160]
        print(json.dumps({"provider": provider, "trouble": found}), flush=True)
"""


def examine(root: Path = Path("/")) -> list[Check]:
    """Look at everything, in the order of the table. ``root`` is where ``proc`` and ``sys`` are looked for."""
    cuda = driver_cuda()
    gpus = shown_gpus(cuda)
    nvidia = check_nvidia(root, gpus)  # before libraries have the GPUs do something
    nvidia += check_cuda(cuda, expected=any(check.name.startswith(("cuda:", "GPU")) for check in nvidia), gpus=gpus)
    return [
        check_python(sys.version_info[:2]),
        *check_packages(),
        *check_gpu_packages(cuda, gpus),
        *check_tools(),
        *check_cpu(root),
        *check_memory(root),
        *check_machine(root),
        *nvidia,
        *check_libraries(cuda, gpus, look_through_libraries(cuda)),
        *check_providers(usable_cuda(cuda, gpus)),
        *check_names(sys.path),
        *check_disk(),
    ]


def table(checks: Sequence[Check]) -> Iterator[RenderableType]:
    """The checks as a table, and below it what to do, one whole command or sentence per line."""
    styles = {"ok": "green", "missing": "bold red", "warning": "yellow", "absent": "dim"}
    lines: list[list[str | Text]] = []
    for group, members in groupby(checks, lambda check: check.group):
        lines.append([prose(group, "bold")])
        lines += [[prose(f"  {check.status}", styles[check.status]), check.name, check.found] for check in members]
    yield grid(("<", "<", ""), lines, show_header=False)
    titles = {
        "missing": "To get what is missing (./run_local.sh sets up all packages):",
        "warning": "To look at:",
        "absent": "To get what is optional (./run_local.sh sets up what its words ask for):",
    }
    for status, title in titles.items():
        hints = dict.fromkeys(check.hint for check in checks if check.status == status and check.hint)
        if hints:
            yield prose(f"\n{title}")
        yield from (f"  {hint}" for hint in hints)


def command(json: bool) -> ExitCode:
    """Examine and print; with the standard library alone where the rest is not to be had.

    ``SETUP`` if something required is missing.
    """
    checks = examine()
    shown: Iterable[RenderableType]
    try:
        import rich.console  # noqa: F401
    except (Exception, SystemExit):  # what is wrong with it is among the checks
        shown = (
            f"{check.status:8} {check.group}: {check.name}: {check.found} {check.hint}".rstrip() for check in checks
        )
    else:
        shown = table(checks)
    emit("doctor", [asdict(check) for check in checks], shown, json)
    return ExitCode.SETUP if any(check.status == "missing" for check in checks) else ExitCode.OK


def check_python(running: tuple[int, int]) -> Check:
    """Whether the packages have wheels for this Python."""
    (oldest, newest), found = PYTHONS, platform.python_version()
    if oldest <= running <= newest:
        return Check("python", "python", "ok", found)
    expected = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
    return Check("python", "python", "missing", f"{found}; supported are {expected}", f"install Python {expected}")


def check_cpu(root: Path) -> list[Check]:
    """Model, cores, and what matters to the models' speed."""
    facts = cpu_facts(root)
    allowed, quota = facts["cores_by_affinity"], facts["cores_by_quota"]
    cores = Check("cpu", "usable cores", "ok", str(allowed))
    if quota is not None and quota < allowed:
        hint = f"the quota throttles more threads: --threads {facts['cores']} is the default"
        found = f"{quota:g} by the cgroup's quota, {allowed} by affinity"
        cores = Check("cpu", "usable cores", "warning", found, hint)
    caches = ", ".join(f"{name} {size // 1024:,} KiB" for name, size in (facts["cache_bytes"] or {}).items())
    highest_mhz = facts["max_frequency_mhz"]
    rest = {
        "logical cores": facts["logical_cores"],
        "physical cores": facts["physical_cores"],
        "sockets": facts["sockets"],
        "NUMA nodes": facts["numa_nodes"],
        "caches": caches,
        "governor": facts["governor"],
        "highest frequency": highest_mhz and f"{highest_mhz:,.0f} MHz",
    }
    features = " ".join(facts["features"] or ())
    return [
        Check("cpu", "model", "ok", facts["cpu"]),
        Check("cpu", "features", "ok" if features else "absent", features or f"none of {' '.join(CPU_FEATURES)}"),
        *(Check("cpu", name, "ok" if told else "absent", str(told or "unknown")) for name, told in rest.items()),
        cores,
        _energy_counters(root / POWERCAP.relative_to("/")),
    ]


def _energy_counters(powercap: Path) -> Check:
    """Whether the CPU's energy can be read."""
    hint = f"let others than root read energy_uj below {POWERCAP}, or run as root: docs/energy.md"
    try:
        packages = len(counters(powercap))
    except ValueError as error:
        return Check("cpu", "energy counters", "absent", one_line(error), hint)
    if packages:
        return Check("cpu", "energy counters", "ok", f"of {packages} package{'s' if packages > 1 else ''}")
    if unreadable(powercap):
        return Check("cpu", "energy counters", "absent", "none that may be read", hint)
    return Check("cpu", "energy counters", "absent", "none")


def check_machine(root: Path) -> list[Check]:
    """What runs on the machine: its kernel, and whether it is quiet enough to measure on now."""
    kind = container(root)
    load = " ".join(f"{average:.2f}" for average in os.getloadavg())
    first = look(os.getpid(), root)
    # At work, not asleep: a process that does not want a core never waits for one.
    while time.monotonic() - first.at_s < LOOK_S:
        pass
    found = between(first, look(os.getpid(), root))
    status: Status = {True: "ok", False: "warning", None: "absent"}[found.is_quiet]  # type: ignore[assignment]
    hint = "wait, or end what else runs: figures measured now are of a busy machine"
    return [
        Check("machine", "kernel", "ok", platform.release()),
        Check("machine", "container", "ok" if kind else "absent", kind or "none seen"),
        Check("machine", "load average", "ok", load),
        Check("machine", "quiet now", status, found.line(), hint if status == "warning" else ""),
    ]


def check_memory(root: Path) -> list[Check]:
    """Memory of the machine, and what the cgroup leaves of it."""
    info = dict(re.findall(r"^(\w+):\s+(\d+) kB$", read_text(root / "proc/meminfo"), re.MULTILINE))
    checks = []
    for name, key in (("total", "MemTotal"), ("available", "MemAvailable")):
        found = _size(int(info[key]) * 1024) if key in info else ""
        checks.append(Check("memory", name, "ok" if found else "absent", found or "unknown"))
    limit = memory_limit(root)
    found = "none" if limit is None else _size(limit)
    return [*checks, Check("memory", "cgroup limit", "absent" if limit is None else "ok", found)]


def check_providers(cuda: int | None) -> list[Check]:
    """Try each execution provider that ONNX Runtime lists, in another process: one that crashes ends only that.

    With a GPU that ``cuda`` works on, a CUDA provider that does not work, or is not there, is worth a warning.
    """
    if not (version_of("onnxruntime") or version_of("onnxruntime-gpu")):
        return []
    troubles: dict[str, str] = {}
    trying, ending = _probe(troubles)
    while trying:
        trying, ending = _probe(troubles)
    faults: dict[str, tuple[Status, str]] = {"CPUExecutionProvider": ("missing", f"{REINSTALL} onnxruntime")}
    if cuda is not None:
        # Both builds write the same module.
        command = f"pip uninstall -y onnxruntime; {gpu_build('onnxruntime', cuda)}"
        faults["CUDAExecutionProvider"] = ("warning", command)
        if not ending:
            troubles.setdefault("CUDAExecutionProvider", "this build has none")
    checks = []
    for name, trouble in troubles.items():
        status, hint = faults.get(name, ("absent", "")) if trouble else ("ok", "")
        checks.append(Check("providers", name, status, trouble or "works", hint))
    if ending:
        hint = f"{REINSTALL} onnxruntime"
        checks.append(Check("providers", "onnxruntime", "warning" if troubles else "missing", ending, hint))
    return checks


def check_names(path: Iterable[str]) -> list[Check]:
    """Whether something else on ``path`` has the name of one of the project's packages, which are generic words.

    Where this project is installed, another distribution may have written into the same folders.
    """
    folders = {Path(entry or ".").resolve() for entry in path} - {CHECKOUT}
    owners = packages_distributions()
    clashes = []
    for name in OWN_NAMES:
        # A file without .py is a program, such as our own script beside Python: nothing imports it.
        files = [file for folder in sorted(folders) for file in (folder / name / "__init__.py", folder / f"{name}.py")]
        others = [file.parent if file.name == "__init__.py" else file for file in files if file.is_file()]
        if not IS_CHECKOUT and {*owners.get(name, ())} - {NAME}:
            others.append(CHECKOUT / name)
        for other in others:
            owner = ", ".join(dict.fromkeys(owners.get(name, ())))
            found = f"also at {other}" + (f" ({owner})" if owner else "")
            hint = f"use ./run_local.sh, whose environment has no other {name}"
            clashes.append(Check("names", name, "warning", found, hint))
    return clashes or [Check("names", " ".join(OWN_NAMES), "ok", "this checkout only")]


def check_disk() -> list[Check]:
    """Free space where results and models go."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    low = free < LOW_DISK_BYTES
    hint = f"free some space in {here}, or write elsewhere with --output" if low else ""
    return [Check("disk", "free here", "warning" if low else "ok", _size(free), hint), _check_cache()]


def _check_cache() -> Check:
    try:
        cache = cache_dir()
    except ValueError as error:
        return Check("disk", "model cache", "absent", f"unknown: {error}")
    try:
        sizes = [file.stat().st_size for file in cache.rglob("*") if file.is_file()]
    except OSError as error:
        return Check("disk", "model cache", "warning", f"{cache} cannot be read: {one_line(error)}")
    return Check("disk", "model cache", "ok" if sizes else "absent", f"{_size(sum(sizes))} in {cache}")


def _probe(troubles: dict[str, str]) -> tuple[str, str]:
    """Try in one process all providers that are not in ``troubles`` yet, and add each one's trouble (empty: it works).

    Returns the provider the process did not survive, if any, and how it ended (empty: well).
    """
    script = [sys.executable, "-P", "-c", PROBE, TINY_MODEL.hex(), *troubles]
    try:
        done = subprocess.run(script, capture_output=True, timeout=PROBE_LIMIT_S, check=False)
        output = done.stdout
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        why = "".join(last)[:160] or f"exit code {done.returncode}, and not a word"
        ending = f"fails: {why}" if done.returncode else ""
        if done.returncode < 0:
            ending = f"crashes ({signal.Signals(-done.returncode).name})"
    except subprocess.TimeoutExpired as error:
        output, ending = error.stdout or b"", f"no answer within {PROBE_LIMIT_S:g} s"
    trying = ""
    # A library may print too.
    for line in re.findall(rb'^{"provider": .*}$', output, re.MULTILINE):
        said = loads(line)
        trying = said["provider"] if said["trouble"] is None else ""
        troubles[said["provider"]] = said["trouble"] if said["trouble"] is not None else ending or "ends the process"
    return trying, ending


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.0f} MiB"
