"""mlperf.conf of the checkout says what LoadGen's compiled-in rules say, for every vision model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlperf_loadgen as lg
import pytest

from sut.config import SCENARIOS
from sut.mlperf.logs import OFFICIAL_SEEDS
from sut.mlperf.official import BENCHMARKS, Benchmark
from sut.mlperf.userconf import SEED_KEYS, Conf, read_conf

RULES = Path(__file__).parents[3] / "mlperf.conf"
MODELS = ("resnet50", "ssd-mobilenet", "retinanet", "yolo", "3d-unet", "a-model-nobody-knows")
TEST05_SEEDS = {f"test05_{name}" for name in OFFICIAL_SEEDS}

# FromConfig's third argument. Its mode 1 is left alone: it works once in a process.
EMBEDDED, FILE_ONLY = 0, 2

MS = 1_000_000
ATTRIBUTES = {
    "min_duration": ("min_duration_ms", int),
    "min_query_count": ("min_query_count", int),
    "performance_sample_count_override": ("performance_sample_count_override", int),
    "sample_concatenate_permutation": ("sample_concatenate_permutation", lambda text: text != "0"),
}
OWN_ATTRIBUTES = {
    ("SingleStream", "target_latency"): ("single_stream_expected_latency_ns", lambda text: float(text) * MS),
    ("SingleStream", "target_latency_percentile"): (
        "single_stream_target_latency_percentile",
        lambda text: float(text) / 100,
    ),
    ("MultiStream", "target_latency"): ("multi_stream_expected_latency_ns", lambda text: float(text) * MS),
    ("MultiStream", "target_latency_percentile"): (
        "multi_stream_target_latency_percentile",
        lambda text: float(text) / 100,
    ),
    ("MultiStream", "samples_per_query"): ("multi_stream_samples_per_query", int),
    ("Server", "target_latency"): ("server_target_latency_ns", lambda text: int(text) * MS),
    ("Server", "target_latency_percentile"): ("server_target_latency_percentile", lambda text: float(text) / 100),
    ("Server", "target_qps"): ("server_target_qps", float),
    ("Offline", "target_qps"): ("offline_expected_qps", float),
}


def settings_from(path: Path | None, model: str, scenario: str) -> dict[str, Any]:
    """Every attribute of fresh settings, read from a file or, without one, from the rules in the wheel."""
    settings = lg.TestSettings()
    code = settings.FromConfig(
        "" if path is None else str(path), model, scenario, EMBEDDED if path is None else FILE_ONLY
    )
    assert code == 0
    found = {name: getattr(settings, name) for name in dir(settings) if not name.startswith("_")}
    return {name: value for name, value in found.items() if not callable(value)}


def is_seed(name: str) -> bool:
    return name in OFFICIAL_SEEDS or name in TEST05_SEEDS


@pytest.fixture(scope="module")
def rules() -> Conf:
    return read_conf(RULES, "rules")


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("model", MODELS)
def test_the_file_sets_what_the_wheel_sets(model: str, scenario: str) -> None:
    embedded = settings_from(None, model, scenario)
    ours = settings_from(RULES, model, scenario)

    assert {name: value for name, value in ours.items() if not is_seed(name)} == {
        name: value for name, value in embedded.items() if not is_seed(name)
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("model", MODELS)
def test_the_seeds_are_the_wheels_digit_by_digit(rules: Conf, model: str, scenario: str) -> None:
    embedded = settings_from(None, model, scenario)

    texts = {name: rules.lookup(model, scenario, name) for name in (*OFFICIAL_SEEDS, *TEST05_SEEDS)}

    assert texts == {name: str(embedded[name]) for name in texts}
    assert {name: texts[name] for name in OFFICIAL_SEEDS} == {name: str(seed) for name, seed in OFFICIAL_SEEDS.items()}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("model", MODELS)
def test_our_reader_finds_the_values_that_loadgen_uses(rules: Conf, model: str, scenario: str) -> None:
    untouched = {name: getattr(lg.TestSettings(), name) for name in settings_from(None, model, scenario)}
    embedded = settings_from(None, model, scenario)

    for key, (attribute, value_of) in ATTRIBUTES.items():
        text = rules.lookup(model, scenario, key)
        assert embedded[attribute] == (untouched[attribute] if text is None else value_of(text)), key
    for (of, key), (attribute, value_of) in OWN_ATTRIBUTES.items():
        text = rules.lookup(model, of, key)
        expected = untouched[attribute] if text is None else value_of(text)
        assert embedded[attribute] == pytest.approx(expected, rel=1e-12), (of, key)


def test_every_key_of_the_file_is_one_of_those_compared(rules: Conf) -> None:
    compared = {*ATTRIBUTES, *(key for _, key in OWN_ATTRIBUTES), *SEED_KEYS, "target_duration"}

    assert {name.rpartition(".")[2] for name in rules.values} <= compared


def test_no_line_stands_there_twice(rules: Conf) -> None:
    lines = [line for line in RULES.read_text().splitlines() if line and not line.startswith("#")]

    assert len(lines) == len(rules.values)


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda benchmark: str(benchmark.name))
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_samples_are_loaded_as_the_benchmark_asks(benchmark: Benchmark, scenario: str) -> None:
    found = settings_from(None, benchmark.conf, scenario)["performance_sample_count_override"]

    assert found == benchmark.performance_samples
