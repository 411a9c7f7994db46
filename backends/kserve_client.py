"""What the backend asks of a server, whichever way it goes there, and how a server fails."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from numpy.typing import NDArray

SCHEMES = ("grpc", "grpcs", "http", "https")
"""With an s at the end: over TLS."""


class Unreachable(ConnectionError):
    """No server there, or one that does not answer, or not in time, or that nobody can trust."""


class Late(Unreachable):
    """No answer in time."""


class Rejected(RuntimeError):
    """A server's own no, with its reason; ``unknown`` where it has nothing of that name."""

    def __init__(self, text: str, *, unknown: bool = False) -> None:
        super().__init__(text)
        self.unknown = unknown


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address, and how it is reached. ``certificate``: who signs for it where that is not the system."""

    scheme: str
    host: str
    port: int
    timeout_s: float
    certificate: Path | None = None

    @property
    def url(self) -> str:
        """As it is named on the command line."""
        return f"{self.scheme}://{self.target}"

    @property
    def target(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_secure(self) -> bool:
        """Whether it is reached over TLS."""
        return self.scheme.endswith("s")


def is_url(word: str) -> bool:
    """Whether a device is the URL of a server."""
    return word.partition("://")[0] in SCHEMES and "://" in word


def endpoint_of(url: str, timeout_s: float, certificate: Path | None) -> Endpoint:
    """The server of a URL ``SCHEME://HOST:PORT``. Raises ``ValueError`` for what is none."""
    expected = f"expected {'|'.join(SCHEMES)}://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"device '{url}': {error}; {expected}") from error
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in SCHEMES or not host or not port or more:
        raise ValueError(f"device '{url}' is no address of a server; {expected}")
    return Endpoint(parts.scheme, host, port, timeout_s, certificate)


@dataclass(frozen=True, slots=True)
class Shared:
    """A region of memory that both processes map, in the place of a tensor's bytes."""

    region: str
    size: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input as it is sent. ``body``: C-contiguous array, bytes, or where in shared memory it lies."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    body: NDArray[Any] | bytes | Shared


@dataclass(frozen=True, slots=True)
class Call:
    """What all requests of a run have in common: the model, its version (empty: the server's choice), the outputs."""

    model: str
    version: str
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: outputs by name, the version that gave it, the times that the server tells of itself in ns."""

    version: str
    outputs: Mapping[str, NDArray[Any]]
    times_ns: Mapping[str, int]
    received_bytes: int


class Client(Protocol):
    """One connection to a server, for one thread at a time.

    Each call raises ``Unreachable`` or ``Rejected``. None is repeated: what failed has failed.
    """

    def server(self) -> Mapping[str, Any]:
        """The server's metadata: ``name``, ``version``, ``extensions``."""

    def model(self, name: str, version: str) -> Mapping[str, Any]:
        """A model's metadata: ``versions``, ``platform``, ``inputs`` and ``outputs`` as dictionaries."""

    def is_ready(self, name: str, version: str) -> bool:
        """Whether the model is loaded."""

    def config(self, name: str, version: str) -> Mapping[str, Any]:
        """A model's configuration as Triton has it, of a server with the extension ``model_configuration``."""

    def infer(self, call: Call, tensors: Sequence[Tensor]) -> Reply:
        """Have a batch answered."""

    def share(self, region: str, key: str, size: int) -> None:
        """Let the server map memory of this host."""

    def unshare(self, region: str) -> None:
        """Have it forget that."""

    def close(self) -> None:
        """End the connection."""


def check_certificate(file: Path) -> None:
    """Raise ``ValueError`` for a file that is none."""
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise ValueError(f"{file}: {error}; the option certificate takes a PEM file") from error
