"""What MLPerf's network division asks beyond the closed one, of a run and of what its server says of itself.

What stands between LoadGen and the network, its query dispatch library, hands on: it neither preprocesses nor batches,
nor computes anything of the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from sut.config import RunConfig
from sut.mlperf.official import Benchmark
from sut.models.base import ModelSpec
from sut.process.addresses import is_loopback

_HANDS_ON = "server"
"""The preprocessor that leaves pictures to the server."""


def host_of(url: str) -> str:
    """The server's name or address."""
    return urlsplit(url).hostname or ""


def is_on_this_machine(url: str) -> str:
    """The rule that a server at ``url`` breaks by being where LoadGen is."""
    return f"the server is on this very machine: {url}"


def broken_by_settings(config: RunConfig, benchmark: Benchmark) -> Iterator[str]:
    """What a run with a server breaks, as far as it was set so."""
    if not benchmark.datacenter:
        yield f"MLPerf's {benchmark.name} is not in the datacenter suite, as the network division is"
    elif config.scenario not in benchmark.datacenter:
        yield f"MLPerf's network division has no scenario {config.scenario}"
    is_one = config.max_batchsize == 1 or (config.max_batchsize is None and config.rules == "network")  # see ``prior``
    if config.scenario == "Server" and not is_one:
        yield f"queries may be batched on LoadGen's side: max_batchsize is {config.max_batchsize or 'auto'}, not 1"
    if config.scenario == "Server" and config.coalesce_queries:
        yield "queries are batched on LoadGen's side: coalesce_queries is on"
    if config.times_preprocessing and config.preprocess != _HANDS_ON:
        yield f"{config.preprocess} preprocesses on LoadGen's side within the clock"
    elif config.boundary == "pixels":
        yield "pictures are preprocessed on LoadGen's side within the clock: at the boundary pixels BGR becomes RGB"
    if config.backend_options.get("shared_memory"):
        yield "inputs lie in shared_memory, and do not go over the network"
    yield from (is_on_this_machine(url) for url in config.devices if is_loopback(host_of(url)))


def broken_by_server(
    config: RunConfig, spec: ModelSpec, benchmark: Benchmark, attested: Mapping[str, Any]
) -> Iterator[str]:
    """What it breaks by what the server says, as ``attested``; what that does not say is taken as broken."""
    details: Mapping[str, str] = attested.get("details", {})
    if (unlike := _weights(config, spec, benchmark, details)) is not None:
        yield unlike
    if config.boundary == "jpeg" and details.get("wire") == "pixels":
        yield "pictures are preprocessed on LoadGen's side within the clock: decoded, as the server takes pixels"
    if details.get("answers") != "ready":
        yield "answers are postprocessed on LoadGen's side: the server gives the model's outputs"


def note_on_weights(
    config: RunConfig, spec: ModelSpec, benchmark: Benchmark, attested: Mapping[str, Any]
) -> str | None:
    """On whose word a server's weights are MLPerf's; None where they are not."""
    details: Mapping[str, str] = attested.get("details", {})
    if spec.name != benchmark.name or _weights(config, spec, benchmark, details) is not None:
        return None
    sha256 = details["server_sha256"]
    whose = "the user's (known_models) and the server's" if _is_vouched(config, spec, sha256) else "the server's"
    return f"the model has MLPerf's weights by {whose} word: SHA-256 {sha256}"


def _weights(config: RunConfig, spec: ModelSpec, benchmark: Benchmark, details: Mapping[str, str]) -> str | None:
    sha256, weights = details.get("server_sha256"), details.get("server_weights")
    if not sha256:
        return "the model's weights are the server's own: nobody here has seen them"
    if weights in ("random", "planted"):
        return f"{weights} weights, as the server says"
    if spec.name != benchmark.name or _is_vouched(config, spec, sha256):
        return None
    fits = weights == "trained" or (benchmark.exports_differ and weights is not None)
    if fits and details.get("server_model") == spec.name:
        return None
    return f"model {spec.name} is the server's, with the SHA-256 {sha256:.16}..., not MLPerf's file"


def _is_vouched(config: RunConfig, spec: ModelSpec, sha256: str) -> bool:
    return config.known_models.get(sha256) == spec.name
