"""Settings, passwords, and how a channel is found by its name."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from sut.channels.base import ChannelSettings
from sut.channels.errors import ChannelClosed, redacted
from sut.channels.registry import load, names, open_receiver, open_sender
from sut.channels.wire import Message
from sut.config.secrets import PASSWORD
from sut.errors import InputError
from tests.children import run_python
from tests.distributions import plug_in


@pytest.mark.parametrize(
    "url",
    [
        *("redis://:secret@host", "redis://:@host", "redis://me:se:cr@et@host/0?timeout=3", "redis://:secret@[::1"),
        *("kafka:me:secret@host:9092", "kafka:/me:secret@host", "redis::secret@host", "redis://me:se?cret@host"),
        *("redis://host?password=secret", "redis://host?pass%77ord=secret", "unix:///redis.sock?password=secret&db=1"),
        *("kafka://h?sasl.password=secret", "kafka://host:1?ssl.key.password=secret", "kafka://h?SASL.PASSWORD=secret"),
        *("kafka://h?sasl.oauthbearer.client.secret=secret", "kafka://h?acks=1&ssl.key.pem=secret"),
    ],
)
def test_settings_hold_no_password(url: str) -> None:
    with pytest.raises(InputError, match="environment") as raised:
        ChannelSettings("redis", "run", url=url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        *("", "redis://me@host", "redis://host:1/0", "unix:///run/redis.sock", "shared:1:2:3:4", "kafka://a:1,b:2"),
        "kafka://host:1?sasl.kerberos.principal=me%40REALM",
    ],
)
def test_settings_take_what_is_no_secret(url: str) -> None:
    assert ChannelSettings("redis", "run", url=url).url == url


def test_a_password_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "secret")
    assert redacted("AUTH secret failed") == "AUTH *** failed"
    monkeypatch.setenv(PASSWORD, "")
    assert redacted("AUTH failed") == "AUTH failed"


@pytest.mark.parametrize("given", [{"run": "a b"}, {"run": ""}, {"name": "a:b"}, {"run": "x" * 65}])
def test_ids_are_words_that_any_broker_takes(given: dict[str, str]) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        ChannelSettings("memory", **({"run": "run"} | given))


@pytest.mark.parametrize("given", [{"capacity": 0}, {"max_bytes": 0}])
def test_a_channel_has_room(given: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected 1 or more"):
        ChannelSettings("memory", "run", **given)  # type: ignore[arg-type]


def test_settings_survive_as_plain_words() -> None:
    settings = ChannelSettings("redis", "run", options={"expiry_s": 5})

    assert ChannelSettings(**asdict(settings)) == settings


def test_channels_are_found_by_their_names() -> None:
    assert {"memory", "shared", "redis"} <= set(names())
    assert load("memory").name == "memory"


def test_another_packages_channel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(
        tmp_path,
        "other",
        "from sut.channels.memory import Memory\nclass Other(Memory):\n    name = 'other'\n",
        "Other",
        "sut.channels",
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert "other" in names()
    with open_receiver(ChannelSettings("other", "run")) as receiver, open_sender(receiver.address) as sender:
        sender.put(Message(1, b"x"), 1.0)
        assert receiver.take(1, 1.0)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown channel 'reddis'; did you mean redis"):
        open_receiver(ChannelSettings("reddis", "run"))


def test_an_unknown_option_is_told() -> None:
    with pytest.raises(InputError, match="memory has no option 'size'"):
        open_receiver(ChannelSettings("memory", "run", options={"size": 1}))


def test_a_missing_package_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis", "sut.channels.redis", "sut.channels.redis_link"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(ModuleNotFoundError, match="the channel redis needs redis hiredis: pip install redis hiredis"):
        load("redis")


def test_a_ring_has_no_more_slots_than_a_pipe_numbers() -> None:
    with pytest.raises(InputError, match="8,192"):
        open_receiver(ChannelSettings("shared", "run", capacity=8193))


@pytest.mark.slow
def test_a_ring_for_which_there_is_no_memory_is_told_before_the_run(tmp_path: Path) -> None:
    script = (
        "import resource\n"
        "from sut.channels.base import ChannelSettings\n"
        "from sut.channels.registry import open_receiver\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "try:\n"
        "    open_receiver(ChannelSettings('shared', 'run', capacity=4))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    told = run_python("-c", script, cwd=tmp_path)

    assert told.out.startswith("SetupError a ring of 4 slots takes 4 MiB of memory: ")


@pytest.mark.parametrize("url", ["", "shared:1:2:3", "shared:a:b:c:d", "shared:0:0:0:0", "redis://host"])
def test_a_ring_that_is_not_there_is_told(url: str) -> None:
    with pytest.raises(ChannelClosed, match="not open at"):
        open_sender(ChannelSettings("shared", "run", url=url))
