"""Channels of every kind, over real brokers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sut.channels.base import ChannelSettings
from tests.brokers import Broker, Make, redis_server

KINDS = ("memory", "shared", "redis")


@pytest.fixture(scope="session")
def the_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with redis_server(tmp_path_factory.mktemp("redis")) as broker:
        yield broker


def url_of(kind: str, request: pytest.FixtureRequest) -> str:
    match kind:
        case "redis":
            return f"redis://127.0.0.1:{request.getfixturevalue('the_redis').port}"
        case _:
            return ""


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    """Settings of a run of its own."""

    def settings(**more: Any) -> ChannelSettings:
        given = {"run": uuid.uuid4().hex, "url": url_of(request.param, request), "capacity": 4} | more
        return ChannelSettings(request.param, **given)

    return settings
