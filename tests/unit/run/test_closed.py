"""What ``--rules closed`` refuses before a run: each rule alone, all of them together, and what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sut.config import SCENARIOS, RunConfig
from sut.datasets.base import DataSet
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.audit import Audit
from sut.models.preparation import Prepared
from sut.models.registry import find
from sut.pipeline.assembly import Assembly
from sut.pipeline.loading import load_backend, load_preprocessor
from sut.run.closed import end_where_broken, refuse
from tests.unit.mlperf.test_rules import FEW, IMAGENET, OTHER, TRAINED


def refused(
    *scenarios: str,
    audit: Audit | None = None,
    model: str = "resnet50",
    file: Prepared | None = TRAINED,
    data: DataSet = IMAGENET,
    **settings: Any,
) -> list[str]:
    """What is told of runs that are refused; nothing where they are not."""
    first, *others = (
        RunConfig.model_validate({"model": model, "rules": "closed", "scenario": scenario, **settings})
        for scenario in scenarios
    )
    backend, preprocessor = load_backend("onnxruntime"), load_preprocessor("opencv")
    parts = Assembly(first, find(model), file, data, backend, preprocessor)
    told: list[str] = []
    try:
        refuse([(config, audit) for config in (first, *others)], parts, told.append)
    except InputError as error:
        rules = f"{len(told)} rule{'s' if len(told) > 1 else ''}"
        assert str(error).startswith(f"--rules closed: nothing was run, as the above would break {rules} of MLPerf's")
        return told
    assert told == []
    return []


def conf(folder: Path, text: str) -> Path:
    path = folder / "some.conf"
    path.write_text(f"{text}\n")
    return path


@pytest.mark.parametrize("mode", ["performance", "accuracy"])
@pytest.mark.parametrize("audit", [None, *official.AUDITS])
def test_a_run_by_the_rules_is_not_refused(mode: str, audit: str | None) -> None:
    obeyed = Audit(file="audit.config", test=audit, settings=official.AUDITS[audit]) if audit else None

    assert refused(*SCENARIOS, mode=mode, audit=obeyed) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"time_s": 600},
        {"time_s": 900},
        {"performance_sample_count": 2048},
        {"max_latency_s": 0.015},
        {"samples_per_query": 8},
        {"coalesce_queries": True, "qps": 100},
        {"boundary": "jpeg"},
        {"relax_server": True, "max_latency_s": 0.01, "qps": 100},
        {"precision": "bf16", "fold": True},
    ],
)
def test_what_is_no_shorter_and_no_easier_is_legal(settings: dict[str, Any]) -> None:
    assert refused(*SCENARIOS, **settings) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"time_s": 599}, "min_duration 599 s < 600 s"),
        ({"performance_sample_count": 1023}, "performance_sample_count 1023 < 1024"),
        ({"samples_per_query": 7}, "MultiStream: samples_per_query 7 is not 8"),
        ({"max_latency_s": 0.016}, "Server: Server latency bound 16 ms > 15 ms"),
        ({"relax_server": True, "qps": 9}, "Server: relax_server lets Server's latency bound be more than 15 ms"),
        ({"file": replace(TRAINED, weights="random")}, "random weights"),
        ({"file": replace(TRAINED, weights="unknown")}, "model resnet50 is resnet50_v1.onnx with the SHA-256 0a1b"),
        ({"file": replace(TRAINED, quantised=True)}, "resnet50_v1.onnx is quantised already: bring the float32 model"),
        ({"file": None, "backend": "null"}, "the null backend runs no model"),
        ({"model": "mobilenet"}, "model mobilenet is not MLPerf's resnet50"),
        ({"backend": "theirs"}, "the backend theirs is not this project's own"),
        ({"preprocess": "theirs"}, "the preprocessor theirs is not this project's own"),
        ({"boundary": "device"}, "at the boundary device the input has already arrived"),
        ({"data": OTHER}, "the list of data set imagenet is not ImageNet's"),
        ({"data": FEW, "mode": "accuracy"}, "data set demo has 11 pictures, not ImageNet's 50000"),
        ({"precision": "int8"}, "the rules of the closed division take MLCommons' calibration pictures only"),
        ({"audit": Audit(file="own.config", test=None, settings={})}, "an audit (own.config) is no result"),
    ],
)
def test_each_rule_is_refused_alone(settings: dict[str, Any], said: str) -> None:
    [told] = refused(*SCENARIOS, **settings)

    assert told.startswith(said)


def test_a_search_is_refused() -> None:
    assert refused("Server", mode="find_peak") == ["FindPeakPerformance is a search, not a result"]


@pytest.mark.parametrize("name", ["user_conf", "mlperf_conf"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("*.*.min_duration = 1000", "min_duration 1 s < 600 s"),
        ("*.SingleStream.min_query_count = 5", "SingleStream: 5 queries < 64"),
        ("resnet50.MultiStream.min_query_count = 5", "MultiStream: 5 queries < 662"),
        ("*.Offline.min_query_count = 5", "Offline: 5 samples < 24576"),
        ("*.MultiStream.samples_per_query = 4", "MultiStream: samples_per_query 4 is not 8"),
        ("*.Server.target_latency = 16", "Server: Server latency bound 16 ms > 15 ms"),
        ("*.Server.target_latency_percentile = 90", "Server: target_latency_percentile 90 is not 99"),
        ("*.*.performance_sample_count_override = 5", "performance_sample_count 5 < 1024"),
        ("*.*.performance_issue_unique = 1", "performance_issue_unique is on: the samples are not drawn at random"),
        ("*.SingleStream.max_query_count = 5", "SingleStream: max_query_count 5 is set, which may end the run early"),
        ("*.Server.max_duration = 700000", "Server: max_duration 700 s is set, which may end the run early"),
    ],
)
def test_a_key_of_a_file_that_shortens_or_relaxes_is_refused(tmp_path: Path, name: str, line: str, said: str) -> None:
    assert refused(*SCENARIOS, **{name: conf(tmp_path, line)}) == [said]


def test_keys_that_set_a_target_are_legal(tmp_path: Path) -> None:
    targets = ["*.Server.target_qps = 50", "*.Offline.target_qps = 90", "*.SingleStream.target_latency = 9"]
    text = "\n".join([*targets, "*.*.min_duration = 700000"])

    assert refused(*SCENARIOS, user_conf=conf(tmp_path, text)) == []


def test_all_that_is_broken_is_told_once_with_its_scenarios_and_not_the_first_alone(tmp_path: Path) -> None:
    own = conf(tmp_path, "ILSVRC2012_val_00000001.JPEG")

    told = refused(
        *("SingleStream", "MultiStream", "Server"),
        data=FEW,
        file=replace(TRAINED, weights="random"),
        **{"preprocess": "theirs", "time_s": 3, "samples_per_query": 4, "precision": "int8", "calibration_list": own},
        **{"boundary": "device", "max_latency_s": 1},
    )

    assert told == [
        "random weights",
        "the preprocessor theirs is not this project's own",
        "at the boundary device the input has already arrived where MLPerf's clock starts",
        "data set demo has 11 pictures, not ImageNet's 50000",
        "min_duration 3 s < 600 s",
        "performance_sample_count 11 < 1024",
        f"{own} is not MLCommons' calibration list (1 entries), expected one of its lists of 500 names "
        "ILSVRC2012_val_NNNNNNNN.JPEG or, of COCO, NNNNNNNNNNNN.jpg; the rules of the closed division take no other",
        "MultiStream: samples_per_query 4 is not 8",
        "Server: Server latency bound 1000 ms > 15 ms",
    ]


def test_what_is_found_before_loadgen_starts_ends_a_closed_run_with_all_of_it_once() -> None:
    parity = "parity of dali: 9 levels > 1 level"
    closed = RunConfig.model_validate({"rules": "closed"})

    with pytest.raises(InputError, match=f"^--rules closed: LoadGen was not started, because of {parity}; another$"):
        end_where_broken(closed, [parity, "another", parity])
    end_where_broken(closed, [])
    end_where_broken(RunConfig(), [parity])
    with pytest.raises(InputError, match=r"^--rules network: LoadGen was not started, because of another$"):
        end_where_broken(RunConfig.model_validate({"rules": "network"}), ["another"])
