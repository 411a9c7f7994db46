"""One connection to a Redis, what its failures mean, and what the server says of itself."""

from __future__ import annotations

from typing import Any

import hiredis  # noqa: F401 - redis-py takes it where it is there, and is several times slower without
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from sut.channels.base import ChannelSettings
from sut.channels.errors import BrokerFull, BrokerGone, ChannelError, password, redacted
from sut.config.secrets import PASSWORD
from sut.errors import InputError, SetupError, one_line

_DEFAULT = "redis://127.0.0.1:6379"

Cut = redis.ConnectionError
"""What sending and receiving raise where a connection was cut."""


def client_name(run: str) -> str:
    """What connections of a run are called: where the server has one of that name, the run is alive."""
    return f"sut-{run}"


class Link:
    """One connection, and what its failures mean. One thread at a time uses it.

    ``sent`` and ``received`` are its bytes, as long as it was not cut.
    """

    def __init__(self, settings: ChannelSettings) -> None:
        self.where = f"the Redis at {settings.url or _DEFAULT}"
        self._patience_s = settings.patience_s
        self.sent = self.received = 0
        given: dict[str, Any] = {} if (found := password()) is None else {"password": found}
        pool: Any = redis.ConnectionPool.from_url(
            settings.url or _DEFAULT,
            **given,
            protocol=2,
            client_name=client_name(settings.run),
            driver_info=None,
            socket_timeout=settings.patience_s,
            socket_connect_timeout=settings.patience_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection = pool.make_connection()
        try:
            self._connection.connect()
            self._server = self.call("INFO", "server", field="run_id")
        except AuthenticationError as error:
            raise InputError(
                redacted(f"{self.where} refuses us: {one_line(error)}; set {PASSWORD}, and the user in the URL")
            ) from None
        except (RedisError, BrokerGone) as error:
            raise SetupError(redacted(f"{self.where} cannot be used: {one_line(error)}")) from None

    def pack(self, *words: Any) -> bytes:
        """A command as it is sent."""
        return b"".join(self._connection.pack_command(*words))

    def call(self, *words: Any, field: str = "") -> Any:
        """The reply to one command; of its lines ``field:value`` that value, empty where there is none."""
        [reply] = self.ask(self.pack(*words), 1)
        if not field:
            return reply
        return lines_of(reply).get(field, "")

    def send(self, commands: bytes) -> None:
        """Send what was packed. Raises ``Cut`` where the connection is cut, else as ``ask``."""
        try:
            self._connection.send_packed_command([commands])
        except redis.TimeoutError:
            raise self._silent() from None
        self.sent += len(commands)

    def receive(self, replies: int, wait_s: float = 0.0) -> list[Any]:
        """So many replies; the first may take ``wait_s`` longer than the server's patience. Raises as ``ask``."""
        found: list[Any] = []
        refused: ResponseError | None = None
        for _ in range(replies):
            try:
                timeout = wait_s + self._patience_s
                found.append(self._connection.read_response(disable_decoding=True, timeout=timeout))
            except redis.TimeoutError:
                raise self._silent() from None
            except ResponseError as error:
                refused = refused or error
        if isinstance(refused, OutOfMemoryError):
            raise BrokerFull(f"{self.where} takes no more: its memory is full (maxmemory)")
        if refused is not None:
            raise ChannelError(redacted(f"{self.where} refuses: {one_line(refused)}"))
        self.received += sum(map(size_of, found))
        return found

    def ask(self, commands: bytes, replies: int, wait_s: float = 0.0) -> list[Any]:
        """Send and receive; where the connection was cut, once more on another.

        Raises ``BrokerGone`` where the server does not answer in time, is not there any more or was started again,
        ``BrokerFull``, and another ``ChannelError`` for what it refuses.
        """
        try:
            self.send(commands)
            return self.receive(replies, wait_s)
        except Cut as error:
            self._reconnect(error)
        try:
            self.send(commands)
            return self.receive(replies, wait_s)
        except Cut as error:
            raise BrokerGone(redacted(f"{self.where} cut the connection twice: {one_line(error)}")) from None

    def _reconnect(self, cut: Exception) -> None:
        try:
            self._connection.disconnect()
            self._connection.connect()
            self.send(self.pack("INFO", "server"))
            [told] = self.receive(1)
        except (RedisError, OSError) as error:
            raise BrokerGone(redacted(f"{self.where} is gone: {one_line(cut)}; then: {one_line(error)}")) from None
        if self._server not in told.decode():
            raise BrokerGone(f"{self.where} was started again in the run: what it held may be lost")

    def _silent(self) -> BrokerGone:
        return BrokerGone(f"{self.where} did not answer within {self._patience_s:g} s")

    def forget(self) -> None:
        """Count ``sent`` and ``received`` from here on."""
        self.sent = self.received = 0

    def close(self) -> None:
        """Cut it."""
        self._connection.disconnect()


def lines_of(text: bytes) -> dict[str, str]:
    """What INFO tells, by name."""
    return dict(line.partition(":")[::2] for line in text.decode().splitlines() if ":" in line)


def durability(link: Link) -> tuple[str, tuple[str, ...]]:
    """What the server's own settings say, and a remark on those that lose messages."""
    try:
        pairs = link.call("CONFIG", "GET", "append*") + link.call("CONFIG", "GET", "maxmemory*")
    except ChannelError:
        return "unknown", ("the server does not tell its settings (CONFIG GET)",)
    words = [each.decode() for each in pairs]
    settings = dict(zip(words[::2], words[1::2], strict=True))
    found = f"AOF {settings.get('appendfsync')}" if settings.get("appendonly") == "yes" else "none"
    policy = settings.get("maxmemory-policy", "noeviction")
    if settings.get("maxmemory", "0") == "0" or policy == "noeviction":
        return found, ()
    return found, (f"maxmemory-policy {policy} throws keys away where memory is full: messages may be lost",)


def size_of(reply: Any) -> int:
    """Bytes of a reply in RESP 2, where its texts are bulk strings."""
    if reply is None:
        return 5
    if isinstance(reply, int):
        return len(f":{reply}\r\n")
    if isinstance(reply, bytes):
        return len(f"${len(reply)}\r\n\r\n") + len(reply)
    return len(f"*{len(reply)}\r\n") + sum(map(size_of, reply))
