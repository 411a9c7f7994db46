"""Runs the two sides of a figure: the product as a command, the bare side as ``overhead_child.py``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHILD = Path(__file__).with_name("overhead_child.py")
LIMIT_S = 900
"""Longest time one side of one measurement may take in seconds."""

# Settings of LoadGen that must agree, or the two sides have not done the same.
_SAME = re.compile(
    r"effective_(scenario|test_mode|min_duration_ms|min_query_count|target_qps|samples_per_query|coalesce_queries"
    r"|server_coalesce_queries|server_target_qps|offline_expected_qps|target_latency_ns|.*_seed)$"
)
# What a user's environment would change about a run.
_FOREIGN = ("DATA_DIR", "MODEL_DIR", "OUTPUT_DIR", "EXTRA_OPS")


class MeasurementError(Exception):
    """One side could not be measured; the text says why in one line."""


def environment(**changes: str) -> dict[str, str]:
    """The environment of every process here: the checkout first on the path, no user settings."""
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def child(task: str, **arguments: Any) -> Any:
    """What a task of ``overhead_child.py`` answers. Raises ``MeasurementError``."""
    done = run_command([sys.executable, "-P", str(CHILD), task, json.dumps(arguments)])
    if done.returncode != 0:
        raise MeasurementError(f"{task}: {last_line(done.stderr) or f'exit code {done.returncode}'}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def product(*options: str) -> Iterator[tuple[dict[str, Any], Path]]:
    """``sut run`` with ``options``: its result.json as a dict, and the directory that has LoadGen's logs too.

    An INVALID run is a result: at saturation every one is. Raises ``MeasurementError`` for a failed one.
    """
    with tempfile.TemporaryDirectory(prefix="overhead-") as output:
        command = [sys.executable, "-P", "-m", "sut", "run", "--dataset", "demo", *options, "--output", output]
        done = run_command(command)
        found = list(Path(output).glob("**/performance/result.json"))
        result = json.loads(found[0].read_text(encoding="utf-8")) if found else None
        if done.returncode not in (0, 4) or result is None or result["failed_samples"]:
            reason = last_line(done.stderr) or f"exit code {done.returncode}"
            raise MeasurementError(f"sut run {' '.join(options)}: {reason}")
        yield result, found[0].parent


def check_same_settings(ours: Mapping[str, Any], bare: Mapping[str, Any]) -> None:
    """Raise ``MeasurementError`` unless two detail logs tell of the same LoadGen settings and as many samples."""
    for key in sorted({*ours, *bare}):
        if _SAME.match(key) and ours.get(key) != bare.get(key):
            raise MeasurementError(f"the two sides differ in {key}: ours {ours.get(key)}, bare {bare.get(key)}")


def first_result_s(checkout: Path, home: Path, pip_cache: Path) -> float:
    """Seconds from the start of ``checkout/run_local.sh`` to its first result.json; then it is stopped.

    ``home`` is an empty folder that stands for the user's; only pip finds its downloads in ``pip_cache``.
    """
    env = environment(
        HOME=str(home),
        XDG_CACHE_HOME=str(home / "cache"),
        SUT_CACHE_DIR=str(home / "cache" / "sut"),
        OUTPUT_DIR=str(home / "output"),
        PIP_CACHE_DIR=str(pip_cache),
        PYTHON=os.environ.get("PYTHON", os.path.realpath(sys.executable)),
    )
    del env["PYTHONPATH"]
    log = home / "log.txt"
    begin = time.monotonic()
    with log.open("wb") as written:
        process = subprocess.Popen(
            [str(checkout / "run_local.sh")],
            cwd=home,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
    try:
        while not any((home / "output").glob("**/result.json")):
            if process.poll() is not None:
                raise MeasurementError(f"run_local.sh: {last_line(log.read_text(encoding='utf-8', errors='replace'))}")
            if time.monotonic() - begin > LIMIT_S:
                raise MeasurementError(f"run_local.sh: no result within {LIMIT_S} s")
            time.sleep(0.05)
        return time.monotonic() - begin
    finally:
        _stop(process)


def copy_checkout(target: Path) -> None:
    """Copy what belongs to the checkout (as git sees it) to ``target``, without anything that was made in it.

    Raises ``MeasurementError`` where the checkout is no git working tree.
    """
    listed = run_command(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    if listed.returncode != 0:
        raise MeasurementError(f"the files of the checkout are not known: {last_line(listed.stderr)}")
    for name in filter(None, listed.stdout.split("\0")):
        source, copy = ROOT / name, target / name
        if source.is_file():  # git also lists files that were removed and not committed
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
            copy.chmod(source.stat().st_mode)


def measured(command: str, load_before: float) -> str:
    """When, with what and where figures were measured, in a line; ``load_before`` is the load average before it."""
    from sut.results.machine import system_facts

    machine = system_facts()
    described = run_command(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"])
    commit = described.stdout.strip() if described.returncode == 0 else "unknown"
    load = f"load average {load_before:.2f} before and {os.getloadavg()[0]:.2f} after"
    where = f"{machine['cpu']}, {machine['cores']} cores; {load}; commit {commit}"
    return f"Measured {machine['utc'][:10]} with `{command}`: {where}."


def run_command(
    command: list[str],
    there: Path | None = None,
    variables: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a session of its own, which is killed whole if the end does not come.

    ``variables`` are all of its environment, where that is not ``environment()``.
    """
    process = subprocess.Popen(
        command,
        cwd=there or tempfile.gettempdir(),  # nothing that lies in the user's directory takes part
        env=variables or environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{' '.join(command[:6])}: no end within {limit_s:g} s") from None
    finally:
        _stop(process)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _stop(process: subprocess.Popen[Any]) -> None:
    """End a process, and what it started: SIGTERM, so that it can tidy up, then SIGKILL."""
    for which, patience_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, which)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)


def last_line(text: str) -> str:
    """The last line with anything in it: where a command says why it failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
