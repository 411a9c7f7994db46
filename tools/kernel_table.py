"""Compiles every kernel for every architecture and writes what each takes into docs/kernels.md.

    python tools/kernel_table.py            compile (a minute or two) and rewrite the table
    python tools/kernel_table.py --print    only print it

No GPU is needed. NVRTC or nvcc must have all of the architectures; the table says which compiler it was.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernels.compilers import KernelSource, find_compiler
from kernels.device import SOURCES
from kernels.lab.resources import Resources, resources

PAGE = Path(__file__).parents[1] / "docs/kernels.md"
BEGIN = "<!-- resources:begin (written by tools/kernel_table.py, not by hand) -->"
END = "<!-- resources:end -->"
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def table(compiler: str, found: Mapping[str, Mapping[str, Resources]]) -> str:
    """Markdown of resources by kernel and architecture.

    >>> print(table("nvcc 13.0", {"a": {"sm_75": Resources(8, 0, 0, 0), "sm_90": Resources(10, 64, 0, 0)}}))
    Compiled by nvcc 13.0: registers per thread on each architecture, and the most of the others on any.
    <BLANKLINE>
    | kernel | sm_75 | sm_90 | shared memory, bytes | stack, bytes | spills, bytes |
    | --- | ---: | ---: | ---: | ---: | ---: |
    | `a` | 8 | 10 | 64 | 0 | 0 |
    """
    architectures = list(next(iter(found.values())))
    lines = [
        f"Compiled by {compiler}: registers per thread on each architecture, and the most of the others on any.",
        "",
        f"| kernel | {' | '.join(architectures)} | shared memory, bytes | stack, bytes | spills, bytes |",
        "| --- |" + " ---: |" * (len(architectures) + 3),
    ]
    for name, by_architecture in found.items():
        every = by_architecture.values()
        most = [
            max(values) for values in zip(*((r.shared_bytes, r.stack_bytes, r.spill_bytes) for r in every), strict=True)
        ]
        cells = [*(str(by_architecture[each].registers) for each in architectures), *map(str, most)]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def measured() -> str:
    """Compile all, and the table of it."""
    compiler = find_compiler()
    found: dict[str, dict[str, Resources]] = {}
    for module in sorted(str(path.relative_to(SOURCES).with_suffix("")) for path in SOURCES.rglob("*.cu")):
        source = KernelSource.read(SOURCES, module)
        for architecture in ARCHITECTURES:
            print(f"{module} {architecture}", file=sys.stderr)
            for name, taken in sorted(resources(compiler.compile(source, architecture).log).items()):
                found.setdefault(name, {})[architecture] = taken
    return table(compiler.label, found)


def main(arguments: Sequence[str]) -> int:
    """Print the table, or put it between its marks in the page."""
    if arguments not in ([], ["--print"]):
        print(f"error: got '{' '.join(arguments)}', expected nothing or --print", file=sys.stderr)
        return 1
    text = measured()
    if arguments == ["--print"]:
        print(text)
        return 0
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        print(f"error: {PAGE} has no '{BEGIN}' followed by '{END}'", file=sys.stderr)
        return 1
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
