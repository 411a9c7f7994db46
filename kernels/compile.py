"""Cubins of the kernels: compiled once per source, options, architecture and compiler, then kept in the cache folder.

What is not known there by its sum as what was made for this key (truncated, foreign, of another source or compiler) is
compiled again and never loaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from kernels.compilers import OPTIONS, Compiler, KernelSource
from kernels.device import SOURCES
from plugins.cache import code_dir, entry, private_dir
from plugins.files import LARGE_BYTES, read_file


def cubin(module: str, architecture: str, compiler: Compiler, sources: Path = SOURCES) -> bytes:
    """The machine code of ``module`` (``resize``) for ``architecture`` (``sm_90``), from the cache or newly compiled.

    Safe with any number of processes at once, as ``plugins.cache.entry`` is. Where the cache folder cannot be written
    the kernels are compiled each time, where others can write there in each process. Raises ``ValueError`` for a module
    that is not there and for an unknown home folder, and ``CompileError``.
    """
    source = KernelSource.read(sources, module)

    def make(path: Path) -> None:
        path.write_bytes(compiler.compile(source, architecture).cubin)

    name, key = f"{Path(source.name).stem}-{architecture}.cubin", key_of(source, architecture, compiler).hex()
    try:
        return read_file(entry(code_dir("kernels") or private_dir(), name, key, make), LARGE_BYTES)
    except OSError:
        return compiler.compile(source, architecture).cubin


def key_of(source: KernelSource, architecture: str, compiler: Compiler) -> bytes:
    """SHA-256 of all that a cubin depends on, each part with its length, so that no two lists look the same."""
    digest = hashlib.sha256()
    parts = [architecture, compiler.identity, *OPTIONS, source.name, source.text]
    for text in [*parts, *(text for header in source.headers for text in header)]:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()
