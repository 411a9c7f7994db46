"""A system that is reached over a network: what LoadGen is told that it is called."""

from __future__ import annotations

from sut.errors import RunError, one_line
from sut.mlperf.official import NETWORK_SUT
from sut.pipeline.system import SUT


def network_name(sut: SUT) -> str:
    """Its name by MLPerf's rules, once its servers have answered. Raises ``RunError`` where one does not."""
    try:
        told = sut.backend.round_trip()
    except Exception as error:
        raise RunError(f"the server does not say its name: {type(error).__name__}: {one_line(error)}") from error
    return f"{NETWORK_SUT}: {told or sut.config.backend}"
