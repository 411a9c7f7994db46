"""A system that is reached over a network: what LoadGen is told that it is called, and where its servers are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NoReturn

from sut.config import RunConfig
from sut.errors import RunError, one_line
from sut.mlperf.network import host_of, is_on_this_machine, note_on_weights
from sut.mlperf.official import NETWORK_SUT, benchmark_of
from sut.mlperf.rules import is_far
from sut.pipeline.assembly import Assembly
from sut.pipeline.system import SUT
from sut.process.addresses import is_here, is_loopback

_LOOK_S = 1.0


def network_name(sut: SUT) -> str:
    """Its name by MLPerf's rules, once its servers have answered. Raises ``RunError`` where one does not."""
    try:
        told = sut.backend.round_trip()
    except Exception as error:
        raise RunError(f"the server does not say its name: {type(error).__name__}: {one_line(error)}") from error
    return f"{NETWORK_SUT}: {told or sut.config.backend}"


def end_when_gone(sut: SUT) -> NoReturn:
    """Of a run that has failed: ask its servers each second who they are. Raises ``RunError`` once one does not answer.

    LoadGen would ask on for as long as it was to. The failure that began it is counted meanwhile.
    """
    while True:
        time.sleep(_LOOK_S)
        network_name(sut)


def weights_told(config: RunConfig, parts: Assembly, attested: Mapping[str, Any]) -> list[str]:
    """On whose word a server's weights count as MLPerf's, where they do."""
    if not is_far(config, parts.model):
        return []
    benchmark = benchmark_of(parts.spec.name, parts.spec.loadgen_model)
    note = note_on_weights(config, parts.spec, benchmark, attested)
    return [note] if note is not None else []


def on_this_machine(config: RunConfig, parts: Assembly) -> list[str]:
    """The rule that each server breaks that is on this machine under another address than a loopback's.

    Only this machine can tell, and only now: of a loopback's the settings tell.
    """
    if not is_far(config, parts.model):
        return []
    hosts = {url: host_of(url) for url in config.devices}
    return [is_on_this_machine(url) for url, host in hosts.items() if not is_loopback(host) and is_here(host)]
