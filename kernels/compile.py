"""Cubins of the kernels: compiled once per source, options, architecture and compiler, then read from the cache folder.

A cached file is the cubin, which is an ELF file, and behind it two SHA-256 sums: of its key (everything it was made
from) and of all before. What does not carry both is not what was written here for this key (truncated, foreign, of
another source or compiler): it is compiled again and never loaded.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from kernels.compilers import OPTIONS, Compiler, Source
from kernels.device import SOURCES
from plugins.cache import code_dir
from plugins.files import LARGE_BYTES, read_file, whole_file

_SUM_BYTES = hashlib.sha256().digest_size


def cubin(module: str, architecture: str, compiler: Compiler, sources: Path = SOURCES) -> bytes:
    """The machine code of ``module`` (``resize``) for ``architecture`` (``sm_90``), from the cache or newly compiled.

    Safe with any number of processes at once: each file is written whole under a name of its own and then renamed.
    Where the cache folder cannot be written, or others can write there, the kernels are compiled each time. Raises
    ``ValueError`` for a module that is not there and for an unknown home folder, and ``CompileError``.
    """
    source = Source.read(sources, module)
    key = key_of(source, architecture, compiler)
    try:
        folder = code_dir("kernels")
    except OSError:
        folder = None
    path = folder / f"{Path(source.name).stem}-{architecture}-{key.hex()[:16]}.cubin" if folder else None
    if path and (found := _read(path, key)) is not None:
        return found
    made = compiler.compile(source, architecture).cubin
    if path:
        with suppress(OSError):
            _write(path, key, made)
    return made


def key_of(source: Source, architecture: str, compiler: Compiler) -> bytes:
    """SHA-256 of all that a cubin depends on, each part with its length, so that no two lists look the same."""
    digest = hashlib.sha256()
    parts = [architecture, compiler.identity, *OPTIONS, source.name, source.text]
    for text in [*parts, *(text for header in source.headers for text in header)]:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def _read(path: Path, key: bytes) -> bytes | None:
    """The cubin in ``path``, or None where there is none or it is not the one of ``key``."""
    try:
        data = read_file(path, LARGE_BYTES)
    except OSError:
        return None
    body, end = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
    if body[-_SUM_BYTES:] != key or hashlib.sha256(body).digest() != end:
        return None
    return body[:-_SUM_BYTES]


def _write(path: Path, key: bytes, made: bytes) -> None:
    with whole_file(path) as file:
        file.write(made + key + hashlib.sha256(made + key).digest())
