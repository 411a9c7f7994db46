"""What goes wrong with a Redis: each ends in a line, in bounded time, and leaves nothing."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from sut.channels.base import ChannelSettings, Receiver, Sender
from sut.channels.errors import BrokerFull, BrokerGone, ChannelClosed, ChannelError
from sut.channels.registry import clean, open_receiver, open_sender
from sut.channels.wire import Message
from sut.config.secrets import PASSWORD
from sut.errors import InputError, SetupError
from tests.brokers import Broker, free_port, left, redis_server
from tests.children import python_started

SOON_S = 20.0


def settings_of(broker: Broker, **more: Any) -> ChannelSettings:
    return ChannelSettings("redis", uuid.uuid4().hex, **({"url": f"redis://127.0.0.1:{broker.port}"} | more))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Broker]:
    """A server that this test may spoil."""
    with redis_server(tmp_path) as broker:
        yield broker


def ends(settings: ChannelSettings) -> tuple[Receiver, Sender]:
    receiver = open_receiver(settings)
    return receiver, open_sender(receiver.address)


def test_its_own_counters_are_ours(own: Broker) -> None:
    receiver, sender = ends(settings_of(own))
    with receiver, sender:
        before, ours = receiver.broker_counters(), wire(receiver, sender)
        assert before is not None
        payload = 0
        for number in range(20):
            body = bytes(number * 1000)
            sender.put(Message(number, body, b"spans"), SOON_S)
            payload += len(body) + 5
            receiver.done(receiver.take(4, SOON_S))
        receiver.take(1, 0.05)
        after, theirs = receiver.broker_counters(), wire(receiver, sender)

        assert after is not None and before.messages is not None and after.messages is not None
        assert after.messages - before.messages == 20 == receiver.counters.messages
        assert after.bytes_in is not None and before.bytes_in is not None
        assert after.bytes_out is not None and before.bytes_out is not None
        assert after.bytes_in - before.bytes_in == theirs[0] - ours[0] > payload
        assert after.bytes_out - before.bytes_out == theirs[1] - ours[1] > payload
        assert sender.counters.bytes == receiver.counters.bytes == payload


def wire(*both: Receiver | Sender) -> tuple[int, int]:
    return sum(each.counters.wire_out for each in both), sum(each.counters.wire_in for each in both)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(SetupError, match=r"^the Redis at redis://127.0.0.1:\d+ cannot be used: .*refused"):
        open_receiver(ChannelSettings("redis", "run", url=f"redis://127.0.0.1:{free_port()}"))


def test_what_is_no_url_of_a_redis() -> None:
    with pytest.raises(InputError, match="URL"):
        open_receiver(ChannelSettings("redis", "run", url="http://127.0.0.1"))


@pytest.mark.parametrize("given", [None, "wrong"])
def test_a_wrong_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    if given:
        monkeypatch.setenv(PASSWORD, given)
    with redis_server(tmp_path, "--requirepass", "right") as broker:
        with pytest.raises(InputError, match=rf"refuses us: .*; set {PASSWORD}") as raised:
            open_receiver(settings_of(broker))
        assert "wrong" not in str(raised.value).replace("WRONGPASS", "")
        monkeypatch.setenv(PASSWORD, "right")
        receiver, sender = ends(settings_of(broker))
        with receiver, sender:
            sender.put(Message(1, b"x"), SOON_S)
            assert receiver.take(1, SOON_S)


def test_a_server_that_is_full(own: Broker) -> None:
    receiver, sender = ends(settings_of(own))
    with receiver, sender:
        client = redis.Redis(port=own.port)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
        with pytest.raises(BrokerFull, match="its memory is full"):
            for number in range(60):
                sender.put(Message(number, bytes(100_000)), SOON_S)
        client.config_set("maxmemory", 0)
    assert left(receiver.settings) == []


@pytest.mark.parametrize(
    ("options", "durability"),
    [
        ({"appendonly": "no"}, "none"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "AOF everysec"),
        ({"appendonly": "yes", "appendfsync": "always"}, "AOF always"),
    ],
)
def test_durability_is_the_servers_own_word(own: Broker, options: dict[str, str], durability: str) -> None:
    client = redis.Redis(port=own.port)
    for name, value in options.items():
        client.config_set(name, value)
    with open_receiver(settings_of(own)) as receiver:
        assert (receiver.durability, receiver.remarks) == (durability, ())


def test_a_server_that_throws_keys_away_is_remarked(own: Broker) -> None:
    client = redis.Redis(port=own.port)
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "volatile-lru")
    with open_receiver(settings_of(own)) as receiver:
        assert receiver.remarks == (
            "maxmemory-policy volatile-lru throws keys away where memory is full: messages may be lost",
        )


def test_a_server_that_tells_nothing_of_itself(own: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    redis.Redis(port=own.port).acl_setuser(
        "few", enabled=True, passwords=["+pass"], keys=["*"], commands=["+@all", "-config", "-client|list"]
    )
    monkeypatch.setenv(PASSWORD, "pass")
    settings = settings_of(own, url=f"redis://few@127.0.0.1:{own.port}")
    with open_receiver(settings) as receiver:
        assert receiver.durability == "unknown"
        assert receiver.remarks


@pytest.mark.parametrize("again", [False, True])
def test_a_server_that_dies_in_the_run(own: Broker, again: bool) -> None:
    receiver, sender = ends(settings_of(own, patience_s=2.0))
    with receiver, sender:
        sender.put(Message(1, b"x"), SOON_S)
        given = [each.message.id for each in receiver.take(1, SOON_S)]
        failed: list[Exception] = []

        def take() -> None:
            try:
                given.extend(each.message.id for each in receiver.take(1, SOON_S))
            except ChannelError as error:
                failed.append(error)

        waiting = threading.Thread(target=take)
        waiting.start()
        own.kill()
        if again:
            own.start()
        with pytest.raises((BrokerGone, ChannelClosed), match=r"is gone|started again|no longer"):
            for number in range(2, 40):
                sender.put(Message(number, b"x"), SOON_S)
        waiting.join(SOON_S)

        assert isinstance(failed[0], BrokerGone)
        assert given == [1]


def test_a_server_that_is_started_again_ends_the_run_whatever_it_has_kept(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as broker:
        receiver, sender = ends(settings_of(broker))
        sender.put(Message(1, b"x"), SOON_S)
        broker.kill()
        broker.start()
        client = redis.Redis(port=broker.port, retry=Retry(ConstantBackoff(0.1), 50, (RedisError,)))
        assert client.xlen(f"sut:{receiver.settings.run}:main") == 1
        for failing in (lambda: sender.put(Message(2, b"x"), SOON_S), lambda: receiver.take(1, SOON_S)):
            with pytest.raises(BrokerGone, match="was started again in the run"):
                failing()
        sender.close()
        receiver.close()
        clean(receiver.settings)
        assert left(receiver.settings) == []


def test_a_server_that_does_not_answer(own: Broker) -> None:
    receiver, sender = ends(settings_of(own, patience_s=0.5))
    with receiver, sender:
        redis.Redis(port=own.port).execute_command("CLIENT", "PAUSE", 3000)
        begin = time.monotonic()
        with pytest.raises(BrokerGone, match=r"did not answer within 0.5 s"):
            sender.put(Message(1, b"x"), SOON_S)
        with pytest.raises(BrokerGone, match=r"did not answer within 0.5 s"):
            receiver.take(1, 0.1)
        assert time.monotonic() - begin < SOON_S
        redis.Redis(port=own.port, socket_timeout=SOON_S).ping()


def test_keys_that_vanish_are_told_at_both_ends(the_redis: Broker) -> None:
    receiver, sender = ends(settings_of(the_redis))
    with receiver, sender:
        redis.Redis(port=the_redis.port).delete(f"sut:{receiver.settings.run}:main")
        with pytest.raises(ChannelClosed, match="evicted, deleted or has expired"):
            sender.put(Message(1, b"x"), SOON_S)
        with pytest.raises(ChannelClosed, match="evicted, deleted or has expired"):
            receiver.take(1, 0.05)
    assert left(receiver.settings) == []


def test_what_others_write_into_the_stream_is_no_message(the_redis: Broker) -> None:
    receiver, sender = ends(settings_of(the_redis))
    with receiver, sender:
        redis.Redis(port=the_redis.port).xadd(f"sut:{receiver.settings.run}:main", {"m": b"other"})
        with pytest.raises(ChannelError, match="is no message"):
            receiver.take(1, SOON_S)


def test_keys_expire_and_not_while_they_are_used(the_redis: Broker) -> None:
    client = redis.Redis(port=the_redis.port)
    receiver = open_receiver(settings_of(the_redis, options={"expiry_s": 1}))
    key = f"sut:{receiver.settings.run}:main"
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        receiver.take(1, 0.05)
    assert client.exists(key)
    assert 0 < client.pttl("sut:channels") <= 1000
    deadline = time.monotonic() + SOON_S
    while client.exists(key) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not client.exists(key)
    receiver.close()


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_living_one(
    the_redis: Broker, tmp_path: Path
) -> None:
    script = (
        "import json, sys, time\n"
        "from sut.channels.base import ChannelSettings\n"
        "from sut.channels.registry import open_receiver\n"
        "receiver = open_receiver(ChannelSettings(**json.loads(sys.argv[1])))\n"
        "print('open', flush=True)\n"
        "time.sleep(600)\n"
    )
    killed, living = settings_of(the_redis), settings_of(the_redis)
    with open_receiver(living), python_started("-c", script, json.dumps(asdict(killed)), cwd=tmp_path) as child:
        assert child.process.stdout is not None
        child.process.stdout.readline()
        child.process.kill()
        child.process.wait()
        assert left(killed)
        deadline = time.monotonic() + SOON_S
        while left(killed) and time.monotonic() < deadline:  # the server takes a moment to see the end of a connection
            open_receiver(settings_of(the_redis)).close()

        assert left(killed) == []
        assert left(living)
    clean(living)
    assert left(living) == []
