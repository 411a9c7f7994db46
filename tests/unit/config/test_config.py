"""RunConfig: what is refused, what names a result folder, and what the words on a command line become."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.config import SCENARIOS, RunConfig, make_config, read_config_file
from sut.config.words import assign, parse_assignment, parse_scenarios
from sut.errors import InputError
from sut.process.cgroup import usable_cores
from tests.children import CHECKOUT, run_python


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"time_s": 0}, "time_s: Input should be greater than 0, got '0'"),
        ({"time_s": -1.5}, "time_s"),
        ({"time_s": float("inf")}, "time_s: Input should be a finite number"),
        ({"time_s": float("nan")}, "time_s"),
        ({"qps": float("inf")}, "qps"),
        ({"qps": 0}, "qps"),
        ({"qps": 1e-9}, "qps"),
        ({"max_latency_s": 0}, "max_latency_s"),
        ({"max_latency_s": float("inf")}, "max_latency_s"),
        ({"max_wait_ms": -1}, "max_wait_ms"),
        ({"max_wait_ms": float("inf")}, "max_wait_ms"),
        ({"watchdog_s": 1e-300}, "watchdog_s: Input should be greater than or equal to 0.1, got '1e-300'"),
        ({"count": True}, "count: expected a number, got 'True'"),
        ({"lanes": True}, "lanes: expected a number"),
        ({"qps": True}, "qps: expected a number"),
        ({"max_wait_ms": False}, "max_wait_ms: expected a number"),
        ({"max_batchsize": 0}, "max_batchsize"),
        ({"max_batchsize": 2.5}, "max_batchsize"),
        ({"lanes": 0}, "lanes"),
        ({"threads": 0}, "threads"),
        ({"count": 0}, "count"),
        ({"samples_per_query": 0}, "samples_per_query"),
        ({"performance_sample_count": 0}, "performance_sample_count"),
        ({"scenario": "offline"}, "scenario"),
        ({"precision": "fp64"}, "precision"),
        ({"fold": "perhaps"}, "fold: Input should be a valid boolean"),
        ({"rules": "open"}, "rules: Input should be 'closed' or 'network', got 'open'"),
        ({"batching": "lifo"}, "batching: Input should be 'deadline' or 'fifo', got 'lifo'"),
        ({"calibration_list": 3}, "calibration_list"),
        ({"boundary": "gpu"}, "boundary: Input should be 'device', 'tensor', 'pixels' or 'jpeg'"),
        ({"backend_options": 3}, "backend_options: Input should be a valid dictionary, got '3'"),
        ({"preprocess_options": ["gpu"]}, "preprocess_options: Input should be a valid dictionary"),
        (
            {"backend_options": {"streams": [1]}},
            "backend_options.streams: expected a number, a word, true or false, got '[1]'",
        ),
        ({"preprocess_options": {"gpu": None}}, "preprocess_options.gpu: expected a number, a word, true or false"),
        ({"weights": "heavy"}, "weights"),
        (
            {"known_models": {"0" * 33: "resnet50"}},
            "known_models: expected 'MD5 or SHA-256 of a file: model', 32 or 64",
        ),
        ({"mode": "quick"}, "mode"),
        ({"backend": "../null"}, "backend: got '../null', expected a name"),
        ({"backend": ""}, "backend: got '', expected a name"),
        ({"preprocess": "open cv"}, "preprocess"),
        ({"model_name": "a/b"}, "model_name"),
        ({"batchsize": 3}, "unknown setting 'batchsize'; did you mean max_batchsize?"),
        ({"lanes": "two"}, "got 'two'"),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_name(settings: dict[str, Any], fragment: str) -> None:
    with pytest.raises(InputError) as refused:
        make_config(settings)

    assert fragment in str(refused.value)
    assert "\n" not in str(refused.value)


def test_nothing_given_is_a_config_by_the_rules() -> None:
    config = make_config({})

    assert (config.time_s, config.qps, config.max_latency_s, config.samples_per_query) == (None, None, None, None)
    assert not config.relax_server
    assert (config.lanes, config.threads, config.max_batchsize, config.max_wait_ms) == (None, None, None, 0.0)


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_config({}).lanes = 2  # type: ignore[misc]


def test_gpu_is_another_word_for_cuda() -> None:
    assert make_config({"device": "gpu"}).device == "cuda"
    assert make_config({"device": "cuda:1"}).device == "cuda:1"


@pytest.mark.parametrize("lanes", [1, 2, 3, 1000])
def test_lanes_share_the_cores_and_each_has_a_thread(lanes: int) -> None:
    assert make_config({"lanes": lanes}).threads_per_lane == max(1, usable_cores() // lanes)
    assert make_config({"lanes": lanes, "threads": 7}).threads_per_lane == 7


@pytest.mark.parametrize(
    ("model", "is_file"),
    [
        ("resnet50", False),
        ("resnet50.onnx", True),
        ("OTHER.ONNX", True),
        ("ir.xml", True),
        ("./resnet50", True),
        ("efficientnet-lite0", False),
    ],
)
def test_a_model_is_a_name_or_a_file(model: str, is_file: bool) -> None:
    assert make_config({"model": model}).is_file is is_file


@pytest.mark.parametrize(
    "change",
    [
        *({"max_batchsize": 8}, {"lanes": 1}, {"threads": 1}, {"time_s": 9.0}, {"qps": 3.0}, {"count": 3}),
        {"weights": "random"},
        *({"precision": "int8"}, {"fold": True}, {"batching": "fifo"}, {"rules": "closed"}),
        *({"backend_options": {"streams": 2}}, {"preprocess_options": {"gpu": 1}}, {"calibration_list": "some.txt"}),
    ],
)
def test_what_changes_the_measurement_changes_the_digest(change: dict[str, Any]) -> None:
    assert make_config(change).digest() != make_config({}).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"scenario": "Offline"},
        {"mode": "accuracy"},
        {"output": "elsewhere"},
        {"overwrite": True},
        {"debug": True},
        {"watchdog_s": 5.0},
        {"lanes": "auto", "threads": "Auto", "max_batchsize": None},
        {"known_models": {"0" * 32: "resnet50"}},
    ],
)
def test_what_does_not_change_it_leaves_the_digest(change: dict[str, Any]) -> None:
    assert make_config(change).digest() == make_config({}).digest()


def test_the_digest_is_the_same_in_every_process() -> None:
    digest = make_config({"lanes": 3}).digest()

    script = "from sut import RunConfig; print(RunConfig(lanes=3).digest())"
    told = run_python("-c", script, cwd=CHECKOUT, PYTHONHASHSEED="1")

    assert (told.code, told.out.strip()) == (0, digest)
    assert len(digest) == 8
    int(digest, 16)


@given(st.lists(st.sampled_from(SCENARIOS), min_size=1, max_size=6), st.sampled_from([str.lower, str.upper, str]))
def test_scenarios_come_in_the_order_given_each_once(names: list[str], spell: Any) -> None:
    assert parse_scenarios(" , ".join(spell(name) for name in names)) == tuple(dict.fromkeys(names))


@pytest.mark.parametrize("text", ["single-stream", "Single_Stream", " singlestream "])
def test_a_scenario_in_other_spellings(text: str) -> None:
    assert parse_scenarios(text) == ("SingleStream",)


def test_all_are_all_four() -> None:
    assert parse_scenarios("ALL") == ("SingleStream", "MultiStream", "Server", "Offline")


@pytest.mark.parametrize("text", ["", ",", "Offline,", "Offline;Server", "offlin"])
def test_a_word_that_is_no_scenario_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(InputError, match=r"unknown scenario '.*known: .*SingleStream.*, all"):
        parse_scenarios(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lanes=2", ("lanes", 2)),
        ("max-wait-ms=0.5", ("max_wait_ms", 0.5)),
        ("overwrite=true", ("overwrite", True)),
        ("inputs=[a, b]", ("inputs", ["a", "b"])),
        ("model=a=b", ("model", "a=b")),
        ("qps=", ("qps", None)),
    ],
)
def test_an_assignment_is_read_as_yaml(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["lanes", "=2", "", "inputs=[a"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--set"):
        parse_assignment(text)


@pytest.mark.parametrize(
    ("before", "key", "value", "after"),
    [
        ({}, "lanes", 2, {"lanes": 2}),
        ({"lanes": 1}, "lanes", 2, {"lanes": 2}),
        ({}, "backend_options.streams", 2, {"backend_options": {"streams": 2}}),
        (
            {"backend_options": {"hint": "latency", "streams": 1}, "lanes": 2},
            "backend_options.streams",
            4,
            {"backend_options": {"hint": "latency", "streams": 4}, "lanes": 2},
        ),
        ({"backend_options": {"hint": "latency"}}, "backend_options", {}, {"backend_options": {}}),
        ({}, "backend_options.a.b", 1, {"backend_options": {"a.b": 1}}),
    ],
)
def test_a_dot_assigns_one_entry_and_keeps_the_others(
    before: dict[str, Any], key: str, value: Any, after: dict[str, Any]
) -> None:
    assign(before, key, value)

    assert before == after


def test_assigning_an_entry_leaves_the_mapping_of_others_alone() -> None:
    shared = {"hint": "latency"}
    settings: dict[str, Any] = {"backend_options": shared}

    assign(settings, "backend_options.streams", 2)

    assert shared == {"hint": "latency"}


@pytest.mark.parametrize("value", [3, None, "latency", ["hint"]])
def test_an_entry_of_what_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(InputError) as refused:
        assign({"backend_options": value}, "backend_options.streams", 2)

    assert str(refused.value) == (
        f"--set backend_options.streams: backend_options is {value!r}, expected a mapping to put streams into"
    )


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lanes.x", "lanes: Input should be a valid integer"),
        ("backend_option.x", "unknown setting 'backend_option'; did you mean backend_options?"),
    ],
)
def test_an_entry_of_another_setting_is_no_setting(key: str, said: str) -> None:
    settings: dict[str, Any] = {}
    assign(settings, key, 2)

    with pytest.raises(InputError, match=re.escape(said)):
        make_config(settings)


def test_a_config_file_gives_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# a run\nbackend: null-ish\nlanes: 2\ntime_s: 1.5\n")

    assert read_config_file(path) == {"backend": "null-ish", "lanes": 2, "time_s": 1.5}


def test_an_empty_config_file_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# nothing\n")

    assert read_config_file(path) == {}


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"- a\n- b\n", "got list, expected 'setting: value' lines"),
        (b"just words\n", "got str"),
        (b"1: 2\n", "expected 'setting: value' lines"),
        (b"a: [1\n", "not a readable YAML file"),
        (b"\xff\xfe", "not a readable YAML file"),
    ],
)
def test_a_broken_config_file_is_named_in_one_line(tmp_path: Path, content: bytes, fragment: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)

    with pytest.raises(InputError) as refused:
        read_config_file(path)

    assert fragment in str(refused.value)
    assert "run.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        read_config_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {"lanes": 2, "output": "out", "inputs": ["a"], "max_batchsize": 8},
        {"precision": "int8", "fold": True, "calibration_list": "list.txt", "rules": "closed", "batching": "fifo"},
        {"backend_options": {"a": True, "b": 1, "c": 1.0, "d": "1", "e": "true"}, "preprocess_options": {}},
    ],
)
def test_what_is_dumped_for_the_child_is_the_same_config(settings: dict[str, Any]) -> None:
    config = make_config(settings)

    again = RunConfig(**json.loads(json.dumps(config.model_dump(mode="json", exclude_unset=True))))

    assert again == config
    assert again.model_fields_set == config.model_fields_set
    for name, value in config.backend_options.items():
        assert type(again.backend_options[name]) is type(value) is type(settings["backend_options"][name])
