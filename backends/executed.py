"""What executes, in words, from the multiply-accumulates that a runtime does in each precision."""

from __future__ import annotations

from collections.abc import Mapping

_PRECISE = ("int8", "bf16", "fp16", "fp32")
"""From the least to the most precise."""
NATIVE_BF16 = frozenset({"avx512_bf16", "amx_bf16"})
"""Either of these flags in /proc/cpuinfo means instructions that multiply bfloat16."""


def executed_precision(work: Mapping[str, int]) -> str:
    """One word for what executes, from the multiply-accumulates done in each precision.

    It is the precision of more than half of them, if nothing at all executes in a lower one. Counting the arithmetic,
    not the layers, keeps a quantised model from hiding one large layer left in fp32 behind ten small ones; and a model
    in which one layer is rounded more coarsely than asked for is not what was asked for. Parts in a *higher* precision
    are what every quantised model has. Anything else is called by all its parts, the largest first.

    >>> executed_precision({"int8": 98, "fp32": 2}), executed_precision({"fp32": 98, "bf16": 2})
    ('int8', 'fp32+bf16')
    """
    if not work:
        return "unknown"
    ordered = sorted(work, key=lambda each: -work[each])
    first = ordered[0]
    known = all(each in _PRECISE for each in ordered)
    if known and 2 * work[first] > sum(work.values()) and first == min(ordered, key=_PRECISE.index):
        return first
    return "+".join(ordered)


def emulated(work: Mapping[str, int], cpu_flags: frozenset[str]) -> str:
    """What executes without instructions of its own: runtimes do bf16 on any AVX-512, slower than fp32."""
    if "bf16" in work and cpu_flags and not cpu_flags & NATIVE_BF16:
        return "bf16, as this CPU has neither avx512_bf16 nor amx_bf16"
    return ""


def shares(work: Mapping[str, int]) -> str:
    """The parts of all multiply-accumulates, by precision.

    >>> shares({"fp32": 1, "int8": 3})
    'fp32: 25.0 %, int8: 75.0 %'
    """
    return listed({each: f"{100 * done / sum(work.values()):.1f} %" for each, done in work.items()})


def listed(numbers: Mapping[str, object]) -> str:
    """Names and numbers, by name."""
    return ", ".join(f"{name}: {number}" for name, number in sorted(numbers.items()))
