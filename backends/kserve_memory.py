"""System shared memory of this host that a server is told of: inputs are written there, not sent."""

from __future__ import annotations

import secrets
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.kserve_client import Client, Rejected, Unreachable


class Memory:
    """Regions of one runner that the server maps, too: one for each input, as large as its largest batch."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._held: dict[str, tuple[str, SharedMemory]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """A new region for an input, in the place of a smaller one."""
        self._forget(name)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory, region = SharedMemory(create=True, size=size), f"sut-{secrets.token_hex(8)}"
        self._held[name] = (region, memory)
        self._client.share(region, f"/{memory.name}", size)
        return np.ndarray(shape, dtype, memory.buf)

    def region(self, name: str) -> str:
        """What the server calls the one of an input."""
        return self._held[name][0]

    def _forget(self, name: str) -> None:
        if name not in self._held:
            return
        region, memory = self._held.pop(name)
        with suppress(Unreachable, Rejected):
            self._client.unshare(region)
        memory.unlink()
        with suppress(BufferError):  # somebody still has the rows: the mapping ends with them
            memory.close()

    def close(self) -> None:
        """Give all of them back."""
        for name in [*self._held]:
            self._forget(name)
