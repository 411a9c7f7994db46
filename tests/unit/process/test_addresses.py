"""Which addresses are this machine's."""

from __future__ import annotations

import socket

import pytest

from sut.process.addresses import is_here, is_loopback


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "a.localhost", "127.0.0.1", "127.8.9.10", "::1", "0.0.0.0"])
def test_a_loopback_leads_back(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "localhost.example", "example.com", ""])
def test_all_else_is_none(host: str) -> None:
    assert not is_loopback(host)


def test_this_machines_own_addresses_are_here_and_others_are_not() -> None:
    # These are for documentation alone (RFC 5737, RFC 3849): no machine has them.
    assert not is_here("192.0.2.7") and not is_here("2001:db8::7")
    assert not is_here("no-such-name.invalid") and not is_here("." * 300)
    assert is_here("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.7", 9))  # nothing is sent: only the way out is chosen
        except OSError:
            return  # there is none
        assert is_here(probe.getsockname()[0])
