"""A zip file whose every byte follows from what is in it, and how it is read without trusting it.

It is an ordinary zip file for everybody else (PKWARE's APPNOTE, 4.3): one disk, deflate, no extra fields or comments,
entries by name, all of them made at the beginning of 1980. Nothing else is read: what says the same in two places
cannot say two things, there are no links, and no header that another reader might follow elsewhere.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sut.errors import short
from sut.studies.proof.finding import Finding

MOST_BYTES = 24_000_000
"""Of an archive: what GitHub takes as an attachment to an issue is 25 MB."""
MOST_FILES = 2000
MOST_UNPACKED_BYTES = 400_000_000
"""Of all files together: LoadGen's logs become a tenth."""
MOST_FILE_BYTES = 32_000_000
"""Of one: ten times LoadGen's log of 50,000 answers."""
MANIFEST = "manifest.json"

_MOST_NAME_BYTES = 1000
_VERSION, _UTF8, _STORED, _DEFLATED = 20, 0x800, 0, 8
_MIDNIGHT, _FIRST_DAY = 0, 0x21
_FILE_MODE = 0o100644 << 16
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_SIGN, _CENTRAL_SIGN, _END_SIGN = b"PK\3\4", b"PK\1\2", b"PK\5\6"


@dataclass(frozen=True, slots=True)
class Packed:
    """One file as it lies in an archive: ``size`` and ``crc`` are those of its content, ``data`` what became of it."""

    name: bytes
    size: int
    crc: int
    data: bytes

    @classmethod
    def of(cls, name: str, content: bytes) -> Packed:
        """The manifest is stored as it is: in deflate some bits have no meaning, and nothing would hold them."""
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = content if name == MANIFEST else deflate.compress(content) + deflate.flush()
        return cls(name.encode(), len(content), zlib.crc32(content), data)

    @property
    def is_stored(self) -> bool:
        """Whether it is not compressed."""
        return self.name == MANIFEST.encode()

    def content(self) -> bytes:
        """What was packed. Raises ``ValueError`` where this is no such thing, or more than it says."""
        if self.is_stored:
            found, whole = self.data, len(self.data) == self.size
        else:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                found = inflate.decompress(self.data, self.size + 1)
            except zlib.error as error:
                raise ValueError(str(error)) from error
            whole = len(found) == self.size and inflate.eof and not inflate.unused_data
        if not whole or zlib.crc32(found) != self.crc:
            raise ValueError("another content than its size and checksum say")
        return found

    def _fields(self) -> tuple[int, ...]:
        """What both headers say of a file."""
        method = _STORED if self.is_stored else _DEFLATED
        sizes = (self.crc, len(self.data), self.size, len(self.name), 0)
        return (_VERSION, _UTF8, method, _MIDNIGHT, _FIRST_DAY, *sizes)

    def local(self) -> bytes:
        """The file with its header."""
        return _LOCAL.pack(_LOCAL_SIGN, *self._fields()) + self.name + self.data

    def central(self, offset: int) -> bytes:
        """Its entry in the directory at the end; the file begins at ``offset``."""
        made_by = 3 << 8 | _VERSION  # Unix, so that its mode counts
        return _CENTRAL.pack(_CENTRAL_SIGN, made_by, *self._fields(), 0, 0, 0, _FILE_MODE, offset) + self.name


def joined(entries: list[Packed]) -> bytes:
    """The archive of these files. There is no other way to write one."""
    files, directory = bytearray(), bytearray()
    for entry in entries:
        directory += entry.central(len(files))
        files += entry.local()
    count = len(entries)
    return bytes(files + directory + _END.pack(_END_SIGN, 0, 0, count, count, len(directory), len(files), 0))


def split(data: bytes) -> list[Packed]:
    """The files of an archive as they lie there, as far as that can be followed."""
    entries: list[Packed] = []
    at = 0
    while data.startswith(_LOCAL_SIGN, at) and at + _LOCAL.size <= len(data) and len(entries) <= MOST_FILES:
        *_, crc, packed, size, name, _ = _LOCAL.unpack_from(data, at)
        begin = at + _LOCAL.size + name
        entries.append(Packed(data[at + _LOCAL.size : begin], size, crc, data[begin : begin + packed]))
        at = begin + packed
    return entries


def unpacked(archive: str, data: bytes) -> tuple[dict[str, bytes], list[Finding]]:
    """The files of an archive by name, and what is wrong with it; where its limits are passed, no files.

    ``archive`` is what it is called. A file that cannot be had is left out.
    """
    entries = split(data)
    if over := next(_over_limits(archive, entries), None):
        return {}, [over]
    found = list(_oddities(archive, data, entries))
    files: dict[str, bytes] = {}
    for entry in entries:
        name = entry.name.decode(errors="replace")
        try:
            _check_name(name, files)
            files[name] = entry.content()
        except ValueError as error:
            found.append(Finding(name, "content", str(error), "a file as a report has it"))
    return files, found


def _over_limits(archive: str, entries: list[Packed]) -> Iterator[Finding]:
    if len(entries) > MOST_FILES:
        yield Finding(archive, "files", "more", f"{MOST_FILES:,} at the most")
    for entry in entries:
        if entry.size > MOST_FILE_BYTES:
            most = f"{short(MOST_FILE_BYTES / 1e6)} MB at the most"
            yield Finding(entry.name.decode(errors="replace"), "size", f"{entry.size:,} bytes", most)
    size = sum(entry.size for entry in entries)
    if size > MOST_UNPACKED_BYTES:
        yield Finding(archive, "unpacked size", f"{size:,} bytes", f"{short(MOST_UNPACKED_BYTES / 1e6)} MB at the most")


def _oddities(archive: str, data: bytes, entries: list[Packed]) -> Iterator[Finding]:
    """Where an archive is not as its files make it."""
    whole = joined(entries)
    if whole != data:
        shorter = min(len(whole), len(data))
        at = next((at for at in range(shorter) if whole[at] != data[at]), shorter)
        got, right = (f"{each[at : at + 1].hex() or 'the end'}" for each in (data, whole))
        yield Finding(archive, f"byte {at:,}", got, right)
    names = [entry.name for entry in entries]
    if names != sorted(set(names)):
        yield Finding(archive, "order", "names twice or in disorder", "each name once, by their bytes")


def _check_name(name: str, others: Mapping[str, bytes]) -> None:
    """Raise ``ValueError`` for a name that is no plain path below a folder."""
    parts = name.split("/")
    plain = name.isprintable() and "\\" not in name and ":" not in name and "\ufffd" not in name
    if not plain or len(name.encode()) > _MOST_NAME_BYTES or not all(part.strip(".") for part in parts):
        raise ValueError("a name that is no plain path")
    folders = {"/".join(parts[:end]) for end in range(1, len(parts))}
    if name in others or folders & set(others) or any(other.startswith(f"{name}/") for other in others):
        raise ValueError("a name that is in another's way")
