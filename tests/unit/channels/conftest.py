"""Channels of every kind, over real brokers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sut.channels.base import ChannelSettings
from tests.brokers import KINDS, Broker, Make, kafka_broker, redis_server


@pytest.fixture(scope="session")
def the_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with redis_server(tmp_path_factory.mktemp("redis")) as broker:
        yield broker


@pytest.fixture(scope="session")
def the_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def url_of(kind: str, request: pytest.FixtureRequest) -> str:
    match kind:
        case "redis":
            return f"redis://127.0.0.1:{request.getfixturevalue('the_redis').port}"
        case "kafka":
            return f"kafka://127.0.0.1:{request.getfixturevalue('the_kafka').port}"
        case _:
            return ""


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    """Settings of a run of its own."""

    def settings(**more: Any) -> ChannelSettings:
        given = {"run": uuid.uuid4().hex, "url": url_of(request.param, request), "capacity": 4} | more
        if request.param == "kafka":
            given["options"] = {"lease_s": 1.0}
        return ChannelSettings(request.param, **given)

    return settings
