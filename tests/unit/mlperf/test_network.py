"""MLPerf's network division: each of its rules broken alone, by settings and by what the server says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from sut.config import RunConfig
from sut.mlperf import official
from sut.mlperf.network import note_on_weights
from sut.mlperf.rules import broken_before, broken_rules
from sut.mlperf.short import rule_name
from sut.models.registry import find
from tests.unit.mlperf.test_rules import IMAGENET, TRAINED, log_of

SHA256 = "ab" * 32
SERVER: dict[str, Any] = {
    "backend": "kserve",
    "device": "grpc://192.0.2.7:8001",
    "preprocess": "server",
    "boundary": "jpeg",
    "max_batchsize": 1,
    "rules": "network",
}
TOLD = {
    "wire": "jpeg",
    "answers": "ready",
    "server_model": "resnet50",
    "server_sha256": SHA256,
    "server_weights": "trained",
}


def broken(
    scenario: str = "Server", told: dict[str, str] | None = None, model: str = "resnet50", **settings: Any
) -> list[str]:
    """What a run breaks by its settings and its log; ``told``: what the server says, "" for what it does not."""
    config = RunConfig.model_validate({"scenario": scenario, "model": model, **SERVER, **settings})
    details = {key: value for key, value in {**TOLD, **(told or {})}.items() if value}
    return broken_rules(config, find(model), None, IMAGENET, log_of(scenario), attested={"details": details})


@pytest.mark.parametrize("rules", ["network", None])
@pytest.mark.parametrize("scenario", official.DATACENTER)
def test_a_run_by_the_rules_breaks_none(scenario: str, rules: str | None) -> None:
    assert broken(scenario, rules=rules) == []
    assert broken(scenario, rules=rules, preprocess="opencv", boundary="tensor", told={"wire": "tensor"}) == []
    assert broken(scenario, rules=rules, device="http://192.0.2.7:8000,grpcs://far.example:8001") == []


def test_offlines_one_query_may_be_cut() -> None:
    assert broken("Offline", max_batchsize=64) == []


def test_where_no_batch_is_told_the_rules_see_to_it_that_there_is_none() -> None:
    assert broken(max_batchsize=None) == []
    [rule] = broken(max_batchsize=None, rules=None)
    assert rule == "queries may be batched on LoadGen's side: max_batchsize is auto, not 1"


BY_SETTINGS: list[tuple[dict[str, Any], str, str]] = [
    ({"scenario": "SingleStream"}, "MLPerf's network division has no scenario SingleStream", "another scenario"),
    ({"scenario": "MultiStream"}, "MLPerf's network division has no scenario MultiStream", "another scenario"),
    ({"max_batchsize": 2}, "queries may be batched on LoadGen's side: max_batchsize is 2, not 1", "client batching"),
    (
        {"coalesce_queries": True},
        "queries are batched on LoadGen's side: coalesce_queries is on",
        "client batching",
    ),
    ({"preprocess": "opencv"}, "opencv preprocesses on LoadGen's side within the clock", "client preprocessing"),
    (
        {"preprocess": "opencv", "boundary": "pixels"},
        "opencv preprocesses on LoadGen's side within the clock",
        "client preprocessing",
    ),
    (
        {"boundary": "pixels"},
        "pictures are preprocessed on LoadGen's side within the clock: at the boundary pixels BGR becomes RGB",
        "client preprocessing",
    ),
    (
        {"backend_options": {"shared_memory": True}},
        "inputs lie in shared_memory, and do not go over the network",
        "shared memory",
    ),
    (
        {"device": "grpc://192.0.2.7:8001,http://127.0.0.1:8000"},
        "the server is on this very machine: http://127.0.0.1:8000",
        "a server here",
    ),
    (
        {"precision": "int8"},
        "int8 is not known to be calibrated on MLCommons' list (--rules closed)",
        "own calibration",
    ),
    (
        {"identify": "efficientnet-lite0"},
        "two models: what resnet50 finds, efficientnet-lite0 identifies; MLPerf's benchmarks have one",
        "",
    ),
]


@pytest.mark.parametrize("rules", ["network", None])
@pytest.mark.parametrize(("settings", "rule", "short"), BY_SETTINGS)
def test_each_rule_is_broken_alone(settings: dict[str, Any], rule: str, short: str, rules: str | None) -> None:
    assert broken(rules=rules, **settings) == [rule]
    assert (rule_name(rule) or "") == short


BY_SERVER: list[tuple[dict[str, str], str, str]] = [
    (
        {"server_sha256": ""},
        "the model's weights are the server's own: nobody here has seen them",
        "unseen weights",
    ),
    ({"server_weights": "random"}, "random weights, as the server says", "random weights"),
    ({"server_weights": "planted"}, "planted weights, as the server says", "planted weights"),
    (
        {"server_weights": "unknown"},
        "model resnet50 is the server's, with the SHA-256 abababababababab..., not MLPerf's file",
        "another model file",
    ),
    (
        {"server_weights": ""},
        "model resnet50 is the server's, with the SHA-256 abababababababab..., not MLPerf's file",
        "another model file",
    ),
    (
        {"server_model": "efficientnet-lite0"},
        "model resnet50 is the server's, with the SHA-256 abababababababab..., not MLPerf's file",
        "another model file",
    ),
    (
        {"wire": "pixels"},
        "pictures are preprocessed on LoadGen's side within the clock: decoded, as the server takes pixels",
        "client preprocessing",
    ),
    (
        {"answers": ""},
        "answers are postprocessed on LoadGen's side: the server gives the model's outputs",
        "client postprocessing",
    ),
]


@pytest.mark.parametrize(("told", "rule", "short"), BY_SERVER)
def test_each_rule_is_broken_alone_by_what_the_server_says(told: dict[str, str], rule: str, short: str) -> None:
    assert broken(told=told) == [rule]
    assert rule_name(rule) == short


def test_a_file_is_mlperfs_by_the_servers_word_or_by_the_users() -> None:
    benchmark = official.BENCHMARKS["resnet50"]
    spec, own = find("resnet50"), RunConfig.model_validate(SERVER)
    vouching = own.model_copy(update={"known_models": {SHA256: "resnet50"}})
    unknown = {"details": {"server_sha256": SHA256, "server_weights": "unknown"}}

    told = "the model has MLPerf's weights by the server's word: SHA-256 " + SHA256
    assert note_on_weights(own, spec, benchmark, {"details": TOLD}) == told
    assert note_on_weights(own, spec, benchmark, unknown) is None
    told = "the model has MLPerf's weights by the user's (known_models) and the server's word: SHA-256 " + SHA256
    assert note_on_weights(vouching, spec, benchmark, unknown) == told
    assert broken(told={"server_weights": "unknown"}, known_models={SHA256: "resnet50"}) == []
    assert len(broken(told={"server_weights": "unknown"}, known_models={SHA256: "mobilenet"})) == 1


def test_of_a_model_that_everybody_exports_the_accuracy_run_is_the_judge() -> None:
    told = {"server_model": "yolo-99", "server_weights": "unknown"}

    assert not [rule for rule in broken(model="yolo-99", told=told) if "weights" in rule or "SHA-256" in rule]
    assert "random weights, as the server says" in broken(model="yolo-99", told=told | {"server_weights": "random"})


def test_a_benchmark_without_server_is_in_no_datacenter() -> None:
    told = {"server_model": "yolo-99", "server_weights": "unknown"}

    [rule, _] = broken("Offline", model="yolo-99", told=told)

    assert rule == "MLPerf's yolo-99 is not in the datacenter suite, as the network division is"
    assert rule_name(rule) == "no datacenter benchmark"


def test_a_model_that_is_here_has_no_network() -> None:
    config = RunConfig.model_validate({"model": "resnet50", "scenario": "Server", "rules": "network"})

    found = broken_rules(config, find("resnet50"), TRAINED, IMAGENET, log_of("Server"))

    assert found == ["the backend onnxruntime is on LoadGen's own machine: no network lies between"]
    assert rule_name(found[0]) == "no network"


def test_the_closed_division_has_no_server() -> None:
    [rule] = broken("SingleStream", rules="closed")

    assert rule == "the model is on a server, which is of the network division: --rules network"
    assert rule_name(rule) == "a server"


def test_before_a_server_is_asked_nothing_is_said_of_it() -> None:
    config = RunConfig.model_validate({"model": "resnet50", "scenario": "Server", **SERVER})
    parts = (config, find("resnet50"), None, IMAGENET, log_of("Server"), None)

    assert broken_before(*parts) == []
    assert len(broken_before(*parts, attested={})) == 2
