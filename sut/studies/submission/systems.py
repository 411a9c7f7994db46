"""systems/SYSTEM.json: what the results know of the machine, and what the user tells of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from plugins.extras import TABLE
from sut.mlperf import official
from sut.mlperf.tree.judge import REHEARSAL
from sut.results.schema import Result
from sut.studies.submission.about import About
from sut.studies.submission.runs import Runs
from sut.version import NAME

_NOTHING = "N/A"
"""Of an accelerator that is not there. Its number is the text "0": of a number MLPerf's checker says it is empty."""
_UNTOLD = "not told"
_UNTOLD_COUNT = {"accelerators_per_node": "0"}
"""In a rehearsal, where a field must not be empty and nobody has told it; some must be numbers."""


def system_json(runs: Runs, about: About, relaxed: Sequence[str] | None) -> dict[str, str]:
    """The file's content: every field that MLPerf asks for, as text.

    What is neither told nor known is empty, but in a rehearsal, where ``relaxed`` has the rules that it relaxes.
    """
    found = _fields(runs, about)
    if relaxed is not None:
        found |= {name: _UNTOLD_COUNT.get(name, _UNTOLD) for name in about.filled_fields if not found[name]}
        notes = [f"{REHEARSAL}: {'; '.join(relaxed) or 'nothing relaxed'}", found["sw_notes"]]
        found["sw_notes"] = ". ".join(filter(None, notes))
    return found


def missing_fields(runs: Runs, about: About) -> list[str]:
    """The fields that must not be empty, that no program can know, and that the user has not told."""
    found = _fields(runs, about)
    return [name for name in about.filled_fields if not found[name].strip()]


def _fields(runs: Runs, about: About) -> dict[str, str]:
    results = [run.result for entry in runs.entries.values() for run in entry.runs.values()]
    if about.division == "network":  # they know LoadGen's machine, and not the server's
        results = []
    known = {**_host(results[0].system), **_accelerators(results[0]), **_software(results[0])} if results else {}
    return {
        "division": about.division,
        "submitter": about.submitter,
        "system_type": about.system_type,
        "status": about.status,
        **({official.IS_NETWORK: "true"} if about.division == "network" else {}),
        **dict.fromkeys((*about.filled_fields, *official.SYSTEM_FREE_FIELDS), ""),
        "system_name": about.system,
        "number_of_nodes": "1",
        **known,
        **about.fields,
    }


def _host(facts: Mapping[str, Any]) -> dict[str, str]:
    sockets, cores, mhz = (_number(facts.get(name)) for name in ("sockets", "physical_cores", "max_frequency_mhz"))
    caches = facts.get("cache_bytes")
    sizes = caches.items() if isinstance(caches, Mapping) else ()
    kilobytes = re.match(r"(\d{1,15}) kB", str(facts.get("memory")))
    return {
        "host_processor_model_name": _text(facts.get("cpu")),
        "host_processors_per_node": f"{sockets:.0f}" if sockets else "",
        "host_processor_core_count": f"{cores / (sockets or 1):.0f}" if cores else "",
        "host_processor_frequency": f"{mhz:.0f} MHz" if mhz else "",
        "host_processor_caches": ", ".join(
            f"{name} {_size(bytes_)}" for name, size in sizes if (bytes_ := _number(size))
        ),
        "host_memory_capacity": _size(int(kilobytes[1]) * 1024) if kilobytes else "",
        "operating_system": _text(facts.get("platform")),
    }


def _accelerators(result: Result) -> dict[str, str]:
    """Those that the run worked on; others that the machine may have took no part."""
    if result.device == "cpu" and not result.gpus:
        names = (
            *("accelerator_model_name", "accelerator_memory_capacity", "accelerator_memory_configuration"),
            *("accelerator_host_interconnect", "accelerator_interconnect"),
        )
        return {"accelerators_per_node": "0", **dict.fromkeys(names, _NOTHING)}
    gpus = result.gpus or []
    known = [gpu.memory_bytes for gpu in gpus if gpu.memory_bytes]
    clocks = [gpu.highest_sm_mhz for gpu in gpus if gpu.highest_sm_mhz]
    count = len(gpus) or result.device.count(",") + 1
    return {
        "accelerators_per_node": str(count),
        "accelerator_model_name": ", ".join(dict.fromkeys(gpu.name for gpu in gpus)) or _text(result.device_name),
        "accelerator_memory_capacity": ", ".join(dict.fromkeys(map(_size, known))),
        "accelerator_frequency": ", ".join(dict.fromkeys(f"{mhz} MHz" for mhz in clocks)),
        "accelerator_interconnect": _NOTHING if count == 1 else "",
    }


def _software(result: Result) -> dict[str, str]:
    """The runtime, and besides it this project and the packages of what took part."""
    chosen = {("backend", result.backend), ("preprocess", result.preprocess)}
    lines = [entry for entry in TABLE if entry.kind == "project" or (entry.kind, entry.name) in chosen]
    names = dict.fromkeys([NAME, "python", *(each.name for entry in lines for each in entry.packages)])
    told = [f"{name} {found}" for name in names if (found := result.versions.get(name))]
    return {
        "framework": " ".join(filter(None, (result.backend, result.backend_version))),
        "other_software_stack": ", ".join(told),
    }


def _size(size: float) -> str:
    """Bytes in the largest unit of which there is at least one.

    >>> _size(32 * 2**20), _size(24684092 * 1024), _size(49152)
    ('32 MiB', '23.5 GiB', '48 KiB')
    """
    unit, name = next((each for each in ((2**30, "GiB"), (2**20, "MiB")) if size >= each[0]), (2**10, "KiB"))
    return f"{size / unit:.1f} {name}".replace(".0 ", " ")


def _number(value: Any) -> float | None:
    """A positive number that a result's free part may have, or anything else."""
    return float(value) if type(value) in (int, float) and 0 < value < 1e18 else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
