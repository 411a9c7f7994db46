"""What the kernel says of the CPU in ``/proc/cpuinfo``, read in this one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_ARM = ("CPU implementer", "CPU part")


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The first CPU: its ``model`` in words (None where nothing tells), and its ``flags`` as the kernel spells them."""

    model: str | None
    flags: frozenset[str]


def read_cpuinfo(root: Path = Path("/")) -> CpuInfo:
    """Read it; with neither a model nor flags where it is not to be had. ``root`` is where ``proc`` is looked for.

    ARM's kernel has no name for a model: there the numbers of its maker and of its design stand for it.
    """
    found: dict[str, str] = {}
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            # The first CPU only: the frequency of each further one may have to be asked of that CPU.
            while line := lines.readline().strip():
                key, _, value = line.partition(":")
                found[key.strip()] = value.strip()
    except OSError:
        return CpuInfo(None, frozenset())
    model = found.get("model name")
    if model is None and all(key in found for key in _ARM):
        model = f"ARM implementer {found[_ARM[0]]}, part {found[_ARM[1]]}"
    return CpuInfo(model or None, frozenset(found.get("flags", found.get("Features", "")).split()))
