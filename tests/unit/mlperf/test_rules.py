"""The rules against what a run did, and LoadGen's verdict in words that help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sut.config import RunConfig
from sut.datasets.base import DataSet
from sut.datasets.imagenet import picture_names, validation_labels
from sut.mlperf import loadgen, official, rules
from sut.mlperf.audit import Audit
from sut.mlperf.logs import Detail
from sut.mlperf.rules import broken_before, broken_rules, explain_invalid, foretold, unexplained
from sut.mlperf.short import IN_SHORT, in_short
from sut.models.base import ModelSpec
from sut.models.preparation import Prepared
from sut.models.registry import find
from sut.process.cgroup import held_back

LABELS = validation_labels()
IMAGENET = DataSet(
    "imagenet", Path(), tuple(picture_names()), np.array([LABELS[name] for name in picture_names()], np.int32)
)
FILE = Path("resnet50_v1.onnx")
TRAINED = Prepared(FILE, FILE, FILE, sha256="0a1b", weights="trained")
EXPORT = replace(TRAINED, weights="unknown")
FEW = DataSet("demo", Path(), ("picture",) * 11, np.zeros(11, np.int32))
OTHER = replace(IMAGENET, files=("another.JPEG", *IMAGENET.files[1:]))

OFFICIAL: dict[str, dict[str, Any]] = {
    "SingleStream": {"result_query_count": 60_000, "effective_target_latency_percentile": 0.9},
    "MultiStream": {
        "result_query_count": 9_000,
        "effective_samples_per_query": 8,
        "effective_target_latency_percentile": 0.99,
    },
    "Server": {
        "result_query_count": 30_000,
        "effective_min_query_count": 100,
        "effective_target_latency_ns": 15_000_000,
        "effective_target_latency_percentile": 0.99,
    },
    "Offline": {"result_query_count": 1, "effective_samples_per_query": 660_000},
}
"""What the log of a run by the rules says, by scenario."""


def log_of(scenario: str, **changes: Any) -> Detail:
    common = {
        "effective_min_duration_ms": 600_000,
        "effective_performance_sample_count": 1024,
        "effective_target_qps": 50.0,
        "result_validity": "VALID",
    }
    values = common | OFFICIAL[scenario] | changes
    return Detail({key: value for key, value in values.items() if value is not None}, ())


def broken(
    scenario: str,
    *,
    model: str = "resnet50",
    file: Prepared | None = TRAINED,
    data: DataSet = IMAGENET,
    **changes: Any,
) -> list[str]:
    settings = {key: changes.pop(key) for key in list(changes) if key in RunConfig.model_fields}
    config = RunConfig(scenario=scenario, model=model, **settings)
    spec: ModelSpec = find(model)
    return broken_rules(config, spec, file, data, log_of(scenario, **changes))


@pytest.mark.parametrize("scenario", OFFICIAL)
def test_a_run_by_the_rules_breaks_none(scenario: str) -> None:
    assert broken(scenario) == []


@pytest.mark.parametrize(
    ("scenario", "changes", "text"),
    [
        ("Offline", {"effective_min_duration_ms": 5000}, "min_duration 5 s < 600 s"),
        ("Server", {"effective_min_duration_ms": 599_999}, "min_duration 599.999 s < 600 s"),
        ("Server", {"effective_performance_sample_count": 1023}, "performance_sample_count 1023 < 1024"),
        ("Server", {"effective_performance_issue_same": True}, "performance_issue_same is on"),
        ("Offline", {"effective_performance_issue_unique": True}, "performance_issue_unique is on"),
        ("Server", {"data": OTHER}, "the list of data set imagenet is not ImageNet's"),
        ("SingleStream", {"result_query_count": 63}, "63 queries < 64"),
        ("MultiStream", {"result_query_count": 661}, "661 queries < 662"),
        ("Server", {"result_query_count": 458}, "458 queries < 459"),
        ("Offline", {"effective_samples_per_query": 24_575}, "24575 samples < 24576"),
        ("MultiStream", {"effective_samples_per_query": 4}, "samples_per_query 4 is not 8"),
        ("SingleStream", {"effective_target_latency_percentile": 0.5}, "target_latency_percentile 50 is not 90"),
        ("Server", {"effective_target_latency_percentile": 0.97}, "target_latency_percentile 97 is not 99"),
        ("Server", {"effective_target_latency_ns": 15_000_001}, "Server latency bound 15 ms > 15 ms"),
        ("Server", {"effective_target_latency_ns": 100_000_000}, "Server latency bound 100 ms > 15 ms"),
        ("SingleStream", {"effective_max_duration_ms": 9000}, "max_duration 9 s is set, which may end the run early"),
        ("Server", {"effective_max_query_count": 7}, "max_query_count 7 is set, which may end the run early"),
        ("Server", {"requested_server_max_async_queries": 7}, "max_async_queries 7 is set"),
        ("Server", {"relax_server": True}, "Server rate 50 queries/s is a quarter of the calibrated one"),
        ("Offline", {"file": replace(TRAINED, weights="random")}, "random weights"),
        ("Offline", {"file": replace(TRAINED, weights="planted")}, "planted weights"),
        (
            "Offline",
            {"file": replace(TRAINED, weights="unknown")},
            "model resnet50 is resnet50_v1.onnx with the SHA-256 0a1b..., not MLPerf's file",
        ),
        ("Offline", {"backend": "null", "file": None}, "the null backend runs no model"),
        ("Offline", {"backend": "theirs"}, "the backend theirs is not this project's own"),
        ("Offline", {"preprocess": "theirs"}, "the preprocessor theirs is not this project's own"),
        ("Offline", {"precision": "int8"}, "int8 is not known to be calibrated on MLCommons' list (--rules closed)"),
        (
            "Server",
            {"precision": "int8", "calibration_list": Path("cal_image_list_option_1.txt")},
            "int8 is not known to be calibrated on MLCommons' list (--rules closed)",
        ),
        ("Offline", {"precision": "int8", "mode": "accuracy"}, "int8 is not known to be calibrated"),
        ("Offline", {"file": replace(TRAINED, quantised=True)}, "int8 is not known to be calibrated"),
        (
            "Offline",
            {"model": "efficientnet-lite0", "file": replace(TRAINED, weights="unknown")},
            "model efficientnet-lite0 is not MLPerf's resnet50",
        ),
        ("Offline", {"model": "efficientnet-lite0"}, "model efficientnet-lite0 is not MLPerf's resnet50"),
        ("Server", {"mode": "find_peak"}, "FindPeakPerformance is a search, not a result"),
    ],
)
def test_a_broken_rule_is_named_alone_with_both_figures(scenario: str, changes: dict[str, Any], text: str) -> None:
    found = broken(scenario, **changes)

    assert len(found) == 1
    assert found[0].startswith(text)


def coco(count: int = 1525) -> DataSet:
    return DataSet("coco", Path(), ("picture",) * count, ())


def detected(
    scenario: str,
    *,
    model: str = "yolo-99",
    data: DataSet | None = None,
    file: Prepared | None = EXPORT,
    **changes: Any,
) -> list[str]:
    """What a run of a detector breaks, by the rules of yolo unless those are another's."""
    conf = "retinanet" if model == "retinanet" else "yolo"
    spec = replace(find("resnet50"), name=model, task="detection", loadgen_model=conf)
    settings = {key: changes.pop(key) for key in list(changes) if key in RunConfig.model_fields}
    config = RunConfig(scenario=scenario, model=model, **settings)
    log = log_of(scenario, **{"effective_performance_sample_count": 64, **changes})
    return broken_rules(config, spec, file, data or coco(), log)


@pytest.mark.parametrize("model", ["yolo-95", "yolo-99"])
@pytest.mark.parametrize("scenario", official.EDGE)
def test_a_detectors_run_by_the_rules_breaks_none_whatever_its_export_is(scenario: str, model: str) -> None:
    assert detected(scenario, model=model) == []
    assert detected(scenario, model=model, mode="accuracy") == []


@pytest.mark.parametrize(
    ("scenario", "changes", "text"),
    [
        ("Offline", {"effective_performance_sample_count": 63}, "performance_sample_count 63 < 64"),
        ("Offline", {"effective_samples_per_query": 1524}, "1524 samples < 1525"),
        ("Offline", {"data": coco(1524)}, "data set coco has 1524 pictures, not MLPerf's 1525"),
        ("Offline", {"data": coco(5000)}, "data set coco has 5000 pictures, more than MLPerf's 1525"),
        ("Offline", {"data": replace(coco(), whole=False)}, "data set coco has 1525 pictures of a longer list, not"),
        ("Offline", {"data": replace(coco(), name="folder")}, "the list of data set folder is not one of coco's"),
        ("Offline", {"mode": "accuracy", "data": coco(64)}, "data set coco has 64 pictures, not MLPerf's 1525"),
        ("Offline", {"file": replace(EXPORT, weights="random")}, "random weights"),
        ("Offline", {"backend": "null", "file": None}, "the null backend runs no model"),
        ("Offline", {"model": "own"}, "model own is not MLPerf's yolo-95"),
        ("Offline", {"precision": "int8"}, "int8 is not known to be calibrated on MLCommons' list"),
        ("Server", {}, "MLPerf's yolo-99 has no scenario Server"),
        ("Server", {"mode": "accuracy"}, "MLPerf's yolo-99 has no scenario Server"),
        ("Server", {"effective_target_latency_ns": 10**9}, "MLPerf's yolo-99 has no scenario Server"),
        ("SingleStream", {"effective_min_duration_ms": 5000}, "min_duration 5 s < 600 s"),
    ],
)
def test_a_rule_that_a_detector_breaks_is_named_alone(scenario: str, changes: dict[str, Any], text: str) -> None:
    [found] = detected(scenario, **changes)

    assert found.startswith(text)


def test_the_least_accuracy_is_a_share_of_each_references() -> None:
    least = {name: f"{100 * each.target:.4f}" for name, each in official.BENCHMARKS.items()}

    assert least == {"resnet50": "75.6954", "yolo-95": "50.7300", "yolo-99": "52.8660", "retinanet": "37.1745"}


def test_a_detector_made_here_is_not_mlperfs_however_it_is_called() -> None:
    spec = replace(find("resnet50"), name="yolo-99", task="detection", loadgen_model="yolo")

    assert rules.is_official_model(spec, EXPORT)
    assert not rules.is_official_model(spec, replace(EXPORT, weights="random"))
    assert not rules.is_official_model(replace(spec, name="yolo11"), EXPORT)


def test_retinanet_has_rules_of_its_own_and_no_round() -> None:
    asked = {"model": "retinanet", "file": TRAINED, "data": DataSet("openimages", Path(), ("picture",) * 24_781, ())}
    retired = "MLPerf's retinanet is retired: no round takes it any more"

    assert detected("Server", **asked, effective_target_latency_ns=100_000_000) == [retired]
    assert detected("Server", **asked, effective_target_latency_ns=100_000_001)[1:] == [
        "Server latency bound 100 ms > 100 ms"
    ]
    assert detected("Offline", **asked, effective_samples_per_query=24_575)[1:] == ["24575 samples < 24576"]


@pytest.mark.parametrize("scenario", official.EDGE)
def test_loadgens_settings_for_yolo_break_no_rule_before_a_run(scenario: str) -> None:
    settings = loadgen.settings_for("yolo", scenario, "performance", [])
    spec = replace(find("resnet50"), name="yolo-95", loadgen_model="yolo")
    config = RunConfig.model_validate({"scenario": scenario, "model": "yolo-95", "rules": "closed"})

    assert broken_before(config, spec, EXPORT, coco(), foretold(settings, coco()), None) == []


def test_a_file_of_the_users_may_still_ask_for_fewer_samples(tmp_path: Path) -> None:
    conf = tmp_path / "user.conf"
    conf.write_text("yolo.Offline.min_query_count = 7\n")

    assert loadgen.settings_for("yolo", "Offline", "performance", [conf]).min_query_count == 7


def test_what_is_not_known_of_a_list_is_a_note() -> None:
    yolo, resnet50 = (official.BENCHMARKS[name] for name in ("yolo-99", "resnet50"))

    assert str(rules.dataset_note(yolo, coco())).startswith("data set coco has as many pictures as MLPerf's, 1,525;")
    assert rules.dataset_note(yolo, coco(1524)) is None
    assert rules.dataset_note(resnet50, IMAGENET) is None


@pytest.mark.parametrize(
    ("scenario", "changes"),
    [
        ("SingleStream", {"result_query_count": 64}),
        ("MultiStream", {"result_query_count": 662}),
        ("Server", {"result_query_count": 459}),
        ("Offline", {"effective_samples_per_query": 24_576}),
        ("Server", {"effective_target_latency_ns": 10_000_000}),
        ("Offline", {"effective_performance_sample_count": 2048}),
    ],
)
def test_just_enough_is_enough(scenario: str, changes: dict[str, Any]) -> None:
    assert broken(scenario, **changes) == []


DEMO = [
    "model efficientnet-lite0 is not MLPerf's resnet50",
    "data set demo has 11 pictures, not ImageNet's 50000",
    "min_duration 3 s < 600 s",
    "performance_sample_count 11 < 1024",
    "Server latency bound 27.32 ms > 15 ms",
    "1467 samples < 24576",
]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (["random weights"], "1 rule broken (random weights)"),
        (DEMO, "6 rules broken (short run, few pictures, ...)"),
        ([*DEMO, "random weights"], "7 rules broken (random weights, short run, ...)"),
        (
            ["min_duration 3 s < 600 s", "63 queries < 64", "661 queries < 662"],
            "3 rules broken (short run, few queries)",
        ),
        ([*DEMO, "parity of dali: 9 levels > 1 level"], "7 rules broken (parity of dali, short run, ...)"),
        ([f"the backend {'x' * 90} is not this project's own"], "1 rule broken (a plug-in)"),
        ([f"tensors {'x' * 90}", "min_duration 3 s < 600 s"], "2 rules broken (short run, ...)"),
        ([f"tensors {'x' * 90}"], "1 rule broken (...)"),
        ([*DEMO, "answers depend on the batch: 3 of 8 labels"], "7 rules broken (batch-dependent answers, ...)"),
        ([*DEMO, "LoadGen left no log to check"], "7 rules broken (no log, short run, ...)"),
    ],
)
def test_what_is_not_official_is_one_line_of_a_terminal(told: list[str], line: str) -> None:
    found = in_short(told)

    assert found == f"not official: {line}, see rules_broken"
    assert len(found) <= 80


def test_every_name_in_short_is_that_of_a_rule() -> None:
    told = [
        *broken("Offline", data=FEW, file=None, **{"effective_samples_per_query": 1, "effective_min_duration_ms": 1}),
        *broken("Server", data=OTHER, model="mobilenet", precision="int8", relax_server=True),
        *broken("Server", file=replace(TRAINED, weights="unknown"), **{"effective_target_latency_ns": 10**9}),
        *broken(
            "Server", file=replace(TRAINED, weights="random"), **{"result_query_count": 1, "result_validity": None}
        ),
    ]

    told += [*detected("Server", data=coco(1526)), *detected("Server", data=replace(coco(), whole=False))]
    told += detected("Offline", model="retinanet")

    # Those that only the run's own process sees.
    told += ["answers depend on the batch: 1 of 8", str(held_back(1.5, 600, 400))]
    told.append(rules.audit_rule(Audit(file="audit.config", test="TEST01", settings={})))
    told += broken_rules(RunConfig(), find("resnet50"), TRAINED, IMAGENET, Detail({}, ()))
    told += broken("Server", mode="find_peak", backend="theirs", boundary="device")
    told += broken("Offline", file=replace(TRAINED, weights="planted"))
    told += broken("Offline", slowdown={"infer": 2.0})

    server = {"file": None, "backend": "kserve", "device": "http://127.0.0.1:8000", "boundary": "jpeg"}
    told += broken("Server", **server, backend_options={"shared_memory": True}, coalesce_queries=True)
    told += broken("SingleStream", **{**server, "preprocess": "server", "boundary": "pixels"})
    told += [*broken("Offline", **server, rules="closed"), *broken("Offline", rules="network")]
    told += [*broken("Offline", **server, model="yolo-99", data=coco()), *broken("Offline", serve="grpc")]

    for part, words in IN_SHORT.items():
        assert words in in_short([rule for rule in told if part in rule]), part


@pytest.mark.parametrize("mode", ["performance", "accuracy"])
@pytest.mark.parametrize(
    "settings", [{"precision": "int8", "rules": "closed"}, {"precision": "bf16"}, {"precision": "fp32", "fold": True}]
)
def test_what_needs_no_calibration_or_has_the_right_one_breaks_no_rule(settings: dict[str, Any], mode: str) -> None:
    assert broken("Offline", mode=mode, **settings) == []


def test_a_stretched_stage_breaks_a_rule() -> None:
    [rule] = broken("Offline", slowdown={"decode": 1.25, "infer": 2})

    assert rule == "slowdown stretches stages on purpose: decode x 1.25, infer x 2"
    assert broken("Offline", mode="accuracy", slowdown={"infer": 2}) == [
        "slowdown stretches stages on purpose: infer x 2"
    ]


def test_a_rate_of_ones_own_is_no_quarter_of_the_calibrated_one() -> None:
    assert broken("Server", relax_server=True, qps=50.0) == []


@pytest.mark.parametrize("scenario", OFFICIAL)
def test_a_run_that_left_no_log_is_not_judged_by_what_it_does_not_say(scenario: str) -> None:
    config = RunConfig(scenario=scenario, model="resnet50")

    assert broken_rules(config, find("resnet50"), TRAINED, IMAGENET, Detail({}, ())) == ["LoadGen left no log to check"]


@pytest.mark.parametrize("scenario", OFFICIAL)
def test_a_log_of_settings_only_is_judged_by_what_it_says(scenario: str) -> None:
    config = RunConfig(scenario=scenario, model="resnet50")
    detail = Detail({"effective_min_duration_ms": 600_000, "effective_performance_sample_count": 1024}, ())

    assert broken_rules(config, find("resnet50"), TRAINED, IMAGENET, detail) == ["the run did not come to its end"]


def test_performance_on_few_pictures_breaks_two() -> None:
    assert broken("Server", data=FEW) == [
        "data set demo has 11 pictures, not ImageNet's 50000",
        "performance_sample_count 11 < 1024",
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (IMAGENET, []),
        (FEW, ["data set demo has 11 pictures, not ImageNet's 50000"]),
        (OTHER, ["the list of data set imagenet is not ImageNet's: names, labels or their order differ"]),
    ],
)
def test_accuracy_asks_for_the_whole_data_set_and_for_no_duration(data: DataSet, expected: list[str]) -> None:
    assert broken("Offline", mode="accuracy", data=data, effective_min_duration_ms=10) == expected


@pytest.mark.parametrize("mode", ["performance", "accuracy"])
@pytest.mark.parametrize("scenario", OFFICIAL)
def test_loadgens_own_settings_break_no_rule_before_a_run(scenario: str, mode: str) -> None:
    settings = loadgen.settings_for("resnet50", scenario, mode, [])
    config = RunConfig.model_validate({"scenario": scenario, "mode": mode, "model": "resnet50", "rules": "closed"})

    told = foretold(settings, IMAGENET)

    assert broken_before(config, find("resnet50"), TRAINED, IMAGENET, told, None) == []


@pytest.mark.parametrize(
    ("scenario", "setting", "value", "said"),
    [
        ("Offline", "min_duration_ms", 599_999, "min_duration 599.999 s < 600 s"),
        ("Server", "performance_sample_count_override", 1023, "performance_sample_count 1023 < 1024"),
        ("Server", "performance_issue_same", True, "performance_issue_same is on"),
        ("Offline", "performance_issue_unique", True, "performance_issue_unique is on"),
        ("SingleStream", "min_query_count", 63, "63 queries < 64"),
        ("MultiStream", "min_query_count", 661, "661 queries < 662"),
        ("Offline", "min_query_count", 24_575, "24575 samples < 24576"),
        ("MultiStream", "multi_stream_samples_per_query", 7, "samples_per_query 7 is not 8"),
        ("SingleStream", "single_stream_target_latency_percentile", 0.5, "target_latency_percentile 50 is not 90"),
        ("MultiStream", "multi_stream_target_latency_percentile", 0.9, "target_latency_percentile 90 is not 99"),
        ("Server", "server_target_latency_percentile", 0.9, "target_latency_percentile 90 is not 99"),
        ("Server", "server_target_latency_ns", 15_000_001, "Server latency bound 15 ms > 15 ms"),
        ("MultiStream", "max_duration_ms", 9000, "max_duration 9 s is set"),
        ("SingleStream", "max_query_count", 9000, "max_query_count 9000 is set"),
        ("Server", "server_max_async_queries", 9, "max_async_queries 9 is set"),
    ],
)
def test_a_setting_of_loadgens_that_breaks_a_rule_is_named_before_a_run(
    scenario: str, setting: str, value: float, said: str
) -> None:
    settings = loadgen.settings_for("resnet50", scenario, "performance", [])
    setattr(settings, setting, value)
    config = RunConfig.model_validate({"scenario": scenario, "model": "resnet50"})

    [found] = broken_before(config, find("resnet50"), TRAINED, IMAGENET, foretold(settings, IMAGENET), None)

    assert found.startswith(said)


def test_server_is_asked_as_little_as_its_rate_says_and_coalesced_as_it_likes() -> None:
    settings = loadgen.settings_for("resnet50", "Server", "performance", [])
    settings.min_query_count, settings.server_coalesce_queries = 1, True

    told = foretold(settings, IMAGENET)

    assert (
        broken_before(RunConfig(scenario="Server", model="resnet50"), find("resnet50"), TRAINED, IMAGENET, told, None)
        == []
    )


@pytest.mark.parametrize("test", official.AUDITS)
def test_an_audits_own_settings_break_nothing_but_that_it_is_one(test: str) -> None:
    audit = Audit(file="audit.config", test=test, settings=official.AUDITS[test])
    config = RunConfig(scenario="Offline", model="resnet50")
    same = {"effective_performance_issue_same": test == "TEST04"}
    judge = (config, find("resnet50"), TRAINED, IMAGENET)

    assert broken_before(*judge, log_of("Offline", **same), audit) == []
    assert broken_rules(*judge, log_of("Offline", **same), audit) == [f"an audit ({test}) is no result"]
    [_, unique] = broken_rules(*judge, log_of("Offline", **same, effective_performance_issue_unique=True), audit)[::-1]
    assert unique.startswith("performance_issue_unique is on")


def test_what_is_none_of_mlperfs_audits_excuses_nothing() -> None:
    audit = Audit(file="own.config", test=None, settings={"mode": 2, "performance_issue_same": 1})
    judge = (RunConfig(scenario="Offline", model="resnet50"), find("resnet50"), TRAINED, IMAGENET)
    detail = log_of("Offline", effective_performance_issue_same=True)

    [first, second] = broken_before(*judge, detail, audit)

    assert first == "an audit (own.config) is no result"
    assert second.startswith("performance_issue_same is on")
    assert broken_rules(*judge, detail, audit) == [first, second]


@pytest.mark.parametrize("scenario", OFFICIAL)
def test_a_valid_run_needs_no_explanation(scenario: str) -> None:
    assert explain_invalid(scenario, log_of(scenario), 5_000_000) == []


@pytest.mark.parametrize(
    ("scenario", "changes", "fragments"),
    [
        (
            "Server",
            {"result_perf_constraints_met": False, "result_99.00_percentile_latency_ns": 31_000_000},
            ["p99 latency 31 ms", "bound of 15 ms", "at 50 queries/s", "--qps", "--max-latency"],
        ),
        (
            "Server",
            {
                "early_stopping_met": False,
                "result_99.00_percentile_latency_ns": 14_000_000,
                "result_overlatency_query_count": 5,
                "result_query_count": 690,
            },
            ["5 of 690 queries", "early stopping", "raise --time"],
        ),
        (
            "Server",
            {
                "early_stopping_met": False,
                "result_99.00_percentile_latency_ns": 14_000_000,
                "result_overlatency_query_count": 0,
                "result_query_count": 60,
            },
            ["60 queries are too few", "459", "raise --time"],
        ),
        (
            "Offline",
            {"result_min_duration_met": False, "effective_target_qps": 880.0, "result_samples_per_second": 970.0},
            ["before 600 s", "told 880", "rate is 970", "raise --qps"],
        ),
        ("Server", {"result_min_duration_met": False}, ["last query was scheduled before 600 s"]),
        ("SingleStream", {"result_min_duration_met": False}, ["ran out of queries", "target_latency"]),
        ("MultiStream", {"result_min_duration_met": False}, ["ran out of queries", "target_latency"]),
        ("SingleStream", {"result_min_queries_met": False}, ["too few queries were issued for min_query_count"]),
        ("MultiStream", {"early_stopping_met": False, "result_query_count": 100}, ["100 queries are too few", "662"]),
        ("Offline", {}, ["LoadGen's verdict is INVALID"]),
        ("Offline", {"result_validity": None}, ["LoadGen's verdict is missing"]),
    ],
)
def test_an_invalid_run_says_why_and_what_to_change(
    scenario: str, changes: dict[str, Any], fragments: list[str]
) -> None:
    [reason] = explain_invalid(scenario, log_of(scenario, **{"result_validity": "INVALID"} | changes), 5_000_000)

    for fragment in fragments:
        assert fragment in reason


TUNE = "and ./run_local.sh tune with the same options finds the highest that does"
SHOULD = f"should pass on a quiet machine, {TUNE}"
LATE = {"result_perf_constraints_met": False, "result_99.00_percentile_latency_ns": 31_000_000}
SOME_LATE = {"early_stopping_met": False, "result_99.00_percentile_latency_ns": 14_000_000}


@pytest.mark.parametrize("changes", [LATE, SOME_LATE], ids=["p99", "early stopping"])
@pytest.mark.parametrize(
    ("fitting_qps", "completed", "advice"),
    [
        (23.456, 50.0, f"--qps 23.456 {SHOULD}"),
        (23.456, 41.0, f"--qps 20.5 {SHOULD}"),
        (None, 41.0, f"--qps 20.5 {SHOULD}"),
        (None, 49.0, f"a lower --qps may pass, {TUNE}"),
        (46.0, 50.0, f"a lower --qps may pass, {TUNE}"),
        (None, None, f"a lower --qps may pass, {TUNE}"),
    ],
)
def test_an_invalid_server_run_names_a_rate_where_something_tells_one(
    changes: dict[str, Any], fitting_qps: float | None, completed: float | None, advice: str
) -> None:
    detail = log_of("Server", result_validity="INVALID", result_completed_samples_per_sec=completed, **changes)

    [reason] = explain_invalid("Server", detail, 5_000_000, fitting_qps=fitting_qps)

    assert advice.replace("23.456", "23.5") in reason


@pytest.mark.parametrize("validity", ["VALID", "INVALID"])
@pytest.mark.parametrize(
    ("said", "changes", "setting"),
    [
        ("Max test duration reached. duration_ns 1", {"effective_max_duration_ms": 2500}, "max_duration 2.5 s"),
        ("Max query count reached. query_count 7", {"effective_max_query_count": 7}, "max_query_count 7"),
        ("Too many outstanding queries. issued 9", {"requested_server_max_async_queries": 8}, "max_async_queries 8"),
    ],
)
def test_a_run_that_a_setting_ended_early_names_it_and_nothing_else(
    validity: str, said: str, changes: dict[str, Any], setting: str
) -> None:
    values = log_of("Server", result_validity=validity, result_min_duration_met=False, **changes).values
    detail = Detail(values, (f"error_runtime: IssueQueryThread 0 Ending early: {said}",))

    [reason] = explain_invalid("Server", detail, 5_000_000)

    assert reason.startswith(f"{setting} ended the run early")
    assert "--qps" not in reason
    assert explain_invalid("Server", detail, 5_000_000, "asked too much") == ["asked too much"]


@pytest.mark.parametrize(
    ("said", "changes", "told_again"),
    [
        ("Max test duration reached.", {}, False),
        ("Ran out of generated queries", {"result_min_duration_met": False}, False),
        ("Ran out of generated queries", {"result_min_queries_met": False}, False),
        ("Ran out of generated queries", {"result_perf_constraints_met": False}, True),
    ],
)
def test_that_loadgen_ended_early_is_not_told_again_where_it_is_explained(
    said: str, changes: dict[str, Any], told_again: bool
) -> None:
    early = f"error_runtime: Ending early: {said}"
    detail = Detail(log_of("Server", result_validity="INVALID", **changes).values, (early,))

    assert unexplained(detail, [early, "another error"]) == [*([early] if told_again else []), "another error"]


def test_unique_samples_are_named_where_they_make_a_run_too_short() -> None:
    detail = log_of(
        "Server", result_validity="INVALID", result_min_duration_met=False, effective_performance_issue_unique=True
    )

    [reason] = explain_invalid("Server", detail, 5_000_000)

    assert reason.startswith("performance_issue_unique asks for each loaded sample once")


def test_a_system_too_slow_for_any_rate_is_told_so() -> None:
    detail = log_of("Server", result_validity="INVALID", result_perf_constraints_met=False)

    [reason] = explain_invalid("Server", detail, 16_000_000)

    assert "one picture alone takes 16 ms" in reason
    assert "no rate is valid" in reason


def test_two_reasons_are_both_told() -> None:
    detail = log_of(
        "Server", result_validity="INVALID", result_perf_constraints_met=False, result_min_duration_met=False
    )

    assert len(explain_invalid("Server", detail, None)) == 2
