"""What a compiled kernel takes: registers, shared memory, stack and spills, as the assembler (ptxas) reports them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_\w+'")
_MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class Resources:
    """One kernel on one architecture: registers per thread, and bytes per block (shared) or thread (the others)."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int
    """Stores and loads together: any is a register that did not fit and goes through memory."""


def resources(log: str) -> dict[str, Resources]:
    """What a compiler's log (``Compiled.log``) says of each entry point, by its name, in the order of the log.

    Device functions that were not inlined have lines of their own, which count only where they are the entry's.
    Raises ``ValueError`` where the log speaks of a kernel but not of its resources: another assembler's words.
    """
    found = {}
    heads = list(_ENTRY.finditer(log))
    for head, following in zip_longest(heads, heads[1:]):
        text = log[head.end() : following.start() if following else None]
        own = text[text.index(f"Function properties for {head[1]}") :] if f"properties for {head[1]}" in text else ""
        memory, registers, shared = _MEMORY.search(own), _REGISTERS.search(text), _SHARED.search(text)
        if not memory or not registers:
            raise ValueError(f"the assembler's log does not tell the resources of {head[1]}: {text[:200]!r}")
        stack, stores, loads = (int(part) for part in memory.groups())
        found[head[1]] = Resources(int(registers[1]), int(shared[1]) if shared else 0, stack, stores + loads)
    return found
