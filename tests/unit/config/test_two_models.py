"""A channel in a config: names and URLs, and nothing secret."""

import pytest

from sut.config import make_config
from sut.errors import InputError

SECRET = "geheim"


@pytest.mark.parametrize(
    "channel",
    ["none", "redis", "redis://me@host:6379/1", "unix:///run/redis.sock", "kafka://a:1,b:2?security.protocol=SSL"],
)
def test_what_a_channel_may_be(channel: str) -> None:
    assert make_config({"channel": channel}).channel == channel


@pytest.mark.parametrize(
    "channel",
    [
        f"redis://:{SECRET}@host",
        f"redis://me:{SECRET}@host:6379/1",
        f"kafka:me:{SECRET}@host:9092",
        f"redis://me:what?{SECRET}@host",
        f"redis://host?password={SECRET}",
        f"redis://host?pass%77ord={SECRET}",
        f"kafka://host:1?sasl.oauthbearer.client.secret={SECRET}",
        f"kafka://host:1?security.protocol=SSL&ssl.key.pem={SECRET}",
        f"kafka://host:1?SASL.PASSWORD={SECRET}",
    ],
)
def test_what_is_secret_is_refused_and_not_shown(channel: str) -> None:
    with pytest.raises(InputError, match="a password in a URL would be seen") as caught:
        make_config({"channel": channel})

    assert SECRET not in str(caught.value)
