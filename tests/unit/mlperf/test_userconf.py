"""Our reader of LoadGen's settings files: LoadGen's precedence, and none of its silence."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import mlperf_loadgen as lg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.errors import InputError
from sut.mlperf.userconf import read_conf

FILE_ONLY = 2
MODEL = "resnet50"
SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
PREFIXES = [f"{model}.{scenario}" for model in (MODEL, "yolo", "*") for scenario in (*SCENARIOS, "*")]
KEYS = {
    "min_duration": "min_duration_ms",
    "max_duration": "max_duration_ms",
    "min_query_count": "min_query_count",
    "performance_sample_count_override": "performance_sample_count_override",
}


def loadgen_reads(path: Path, scenario: str) -> tuple[int, lg.TestSettings]:
    settings = lg.TestSettings()
    return settings.FromConfig(str(path), MODEL, scenario, FILE_ONLY), settings


def written(text: str | bytes) -> Path:
    """A file in a folder of its own, so that hypothesis may ask for many."""
    path = Path(tempfile.mkdtemp(prefix="userconf-")) / "user.conf"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(autouse=True)
def _temporary_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@given(
    lines=st.lists(
        st.tuples(st.sampled_from(PREFIXES), st.sampled_from(sorted(KEYS)), st.integers(1, 999)), max_size=12
    ),
    scenario=st.sampled_from(SCENARIOS),
)
def test_lookup_finds_what_loadgen_finds(lines: list[tuple[str, str, int]], scenario: str) -> None:
    path = written("".join(f"{prefix}.{key} = {value}\n" for prefix, key, value in lines))

    conf = read_conf(path)
    code, settings = loadgen_reads(path, scenario)

    assert code == 0
    untouched = lg.TestSettings()
    for key, attribute in KEYS.items():
        text = conf.lookup(MODEL, scenario, key)
        assert conf.sets(MODEL, scenario, key) == (text is not None)
        expected = getattr(untouched, attribute) if text is None else int(text)
        assert getattr(settings, attribute) == expected


MORE_TO_LESS_SPECIFIC = (f"{MODEL}.Server", "*.Server", f"{MODEL}.*", "*.*")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_more_specific_line_wins_wherever_it_stands(count: int) -> None:
    for prefixes in itertools.permutations(MORE_TO_LESS_SPECIFIC, count):
        value = {prefix: str(7 + number) for number, prefix in enumerate(prefixes)}
        path = written("".join(f"{prefix}.min_duration = {value[prefix]}\n" for prefix in prefixes))

        winner = min(prefixes, key=MORE_TO_LESS_SPECIFIC.index)
        assert read_conf(path).lookup(MODEL, "Server", "min_duration") == value[winner]
        assert loadgen_reads(path, "Server")[1].min_duration_ms == int(value[winner])


WORDS = (
    "*.*.min_duration",
    "x",
    "=",
    "#",
    "#a",
    "##",
    "7",
    "010",
    "0x7",
    "1e3",
    "-1",
    "7.0",
    "7#",
    "=7",
    "\u00a0",
    "\ufeff",
)
GAPS = ("", " ", "\t", "  ", "\r\n", "\n", "\x0b", "\x0c", "\x1c", "\u2028")


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=8))
def test_what_we_accept_loadgen_reads_as_we_do(pieces: list[tuple[str, str]]) -> None:
    path = written("".join(word + gap for word, gap in pieces))
    try:
        conf = read_conf(path)
    except InputError as error:
        assert str(path) in str(error)
        return

    code, settings = loadgen_reads(path, "Server")

    text = conf.lookup(MODEL, "Server", "min_duration")
    assert code == 0
    assert settings.min_duration_ms == (lg.TestSettings().min_duration_ms if text is None else int(text))


@pytest.mark.parametrize(
    ("scenario", "attribute", "value"),
    [
        ("SingleStream", "single_stream_expected_latency_ns", "0.25"),
        ("MultiStream", "multi_stream_expected_latency_ns", "1.5"),
        ("Server", "server_target_latency_ns", "15"),
    ],
)
def test_target_latency_is_in_ms_with_a_fraction_where_loadgen_takes_one(
    scenario: str, attribute: str, value: str
) -> None:
    path = written(f"*.{scenario}.target_latency = {value}\n")

    assert read_conf(path).lookup(MODEL, scenario, "target_latency") == value
    assert getattr(loadgen_reads(path, scenario)[1], attribute) == float(value) * 1e6


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("*.Server.target_qps=5", "with a blank on both sides of '='"),
        ("*.Server.target_qps =5", "with a blank on both sides of '='"),
        ("*.Server.target_qps\u00a0=\u00a05", "with a blank on both sides of '='"),
        ("*.Server.target_qps 5", "expected 'model.scenario.key = value'"),
        ("*.Server.target_qps = 5 6", "with a blank on both sides"),
        ("*.Server.target_qps = 5 # fast", "a comment behind a value"),
        ("target_qps = 5", "expected 'model.scenario.key'"),
        ("Server.target_qps = 5", "expected 'model.scenario.key'"),
        (".Server.target_qps = 5", "expected 'model.scenario.key'"),
        ("*.server.target_qps = 5", "unknown scenario 'server'; did you mean Server?"),
        ("*.Server.target_qsp = 5", "unknown key 'target_qsp'; did you mean target_qps?"),
        ("*.Server.accuracy_log_probability = 5", "unknown key"),
        ("gptj.*.use_token_latencies = 1", "unknown key"),
        ("*.Server.mode = 2", "--accuracy"),
        ("*.Server.target_duration = 5", "unknown key"),
        ("*.Server.target_qps = 0", "more than 0"),
        ("*.SingleStream.target_latency = 0", "more than 0"),
        ("*.*.target_latency = 0", "more than 0"),
        ("*.MultiStream.samples_per_query = 0", "1 to 1,000,000"),
        ("*.Server.target_latency_percentile = 100", "less than 100"),
        ("*.*.min_duration = 1000000000001", "at most 1,000,000,000,000"),
        (
            "*.Server.sample_concatenate_permutation = 1",
            "takes 0: MLPerf has every sample drawn at random for image class",
        ),
        ("*.*.accuracy_sample_count_override = 3", "--count"),
        ("*.Server.num_issue_query_threads = 2", "hangs"),
        ("*.*.qsl_rng_seed = 5", "official"),
        ("*.*.accuracy_log_rng_seed = 5", "official"),
        ("*.*.min_duration = 1e3", "whole number"),
        ("*.*.min_duration = 10.0", "whole number"),
        ("*.*.min_duration = -1", "whole number"),
        ("*.*.min_duration = 0600000", "whole number"),
        ("*.*.min_duration = 0x10", "whole number"),
        ("*.Server.target_latency = 2.5", "whole number"),
        ("*.*.target_latency = 2.5", "whole number"),
        ("*.SingleStream.target_latency = 4ms", "milliseconds"),
        ("*.Server.target_qps = fast", "takes a number"),
        ("*.Server.target_qps = -3", "takes a number"),
        ("*.Server.target_qps = nan", "takes a number"),
        ("#comment without a blank", "without a blank behind '#'"),
        ("## heading", "without a blank behind '#'"),
        ("#a \u00a0", "without a blank behind '#'"),
        ("#*.Server.target_qps = fast", "without a blank behind '#'"),
    ],
)
def test_what_loadgen_would_ignore_or_misread_is_refused_with_its_line(line: str, fragment: str) -> None:
    path = written(f"# settings\n\n{line}\n")

    with pytest.raises(InputError) as refused:
        read_conf(path)

    assert fragment in str(refused.value)
    assert f"{path}:3: " in str(refused.value)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(b"\xff\xfe*", "cannot be read as text"), ("\ufeff# settings\n".encode(), "byte order mark")],
)
def test_a_file_in_another_encoding_is_refused(content: bytes, fragment: str) -> None:
    path = written(content)

    with pytest.raises(InputError, match=fragment):
        read_conf(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.conf: no such file"):
        read_conf(tmp_path / "none.conf")
    with pytest.raises(InputError, match="cannot be read"):
        read_conf(tmp_path)


def test_comments_and_windows_line_ends_are_read_over() -> None:
    path = written("#\n# a comment\n   # indented\n#*.*.min_duration = 9\n\t*.*.min_duration\t=\t7 \r\n\r\n")

    assert read_conf(path).values == {"*.*.min_duration": "7"}
    assert loadgen_reads(path, "Server")[0] == 0


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_line_ends_where_it_ends_for_loadgen(odd: str) -> None:
    path = written(f"# a comment{odd}*.*.min_duration = 7\n")

    assert read_conf(path).values == {}
    assert loadgen_reads(path, "Server")[1].min_duration_ms == lg.TestSettings().min_duration_ms


def test_of_two_equal_lines_the_last_one_counts() -> None:
    path = written("*.*.min_duration = 1\n*.*.min_duration = 2\n")

    assert read_conf(path).lookup(MODEL, "Offline", "min_duration") == "2"
    assert loadgen_reads(path, "Offline")[1].min_duration_ms == 2


def test_rules_may_hold_seeds_and_what_other_tasks_need() -> None:
    path = written(
        "*.*.qsl_rng_seed = 2085463073848966840\n"
        "llama3_1-405b.*.use_token_latencies = 1\n"
        "llama2-70b.Server.ttft_latency = 2000\n"
        "wan-2.2-t2v-a14b.Offline.min_query_count = 248\n"
    )

    conf = read_conf(path, "rules")

    assert conf.lookup("wan-2.2-t2v-a14b", "Offline", "min_query_count") == "248"
    assert conf.lookup("resnet50", "Server", "qsl_rng_seed") == "2085463073848966840"


def test_what_other_models_rules_say_is_not_judged() -> None:
    lines = "3d-unet.*.sample_concatenate_permutation = 1\n*.Server.target_duration = 0\n"

    assert len(read_conf(written(lines), "rules").values) == 2
    with pytest.raises(InputError, match="image classifiers"):
        read_conf(written("*.*.sample_concatenate_permutation = 1\n"), "rules")


@pytest.mark.parametrize("line", ["*.Server.target_latency = 0", "*.Offline.sample_concatenate_permutation = 0"])
def test_values_that_change_no_run_are_legal(line: str) -> None:
    assert len(read_conf(written(f"{line}\n")).values) == 1


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("*.*.accuracy_log_rng_sed = 1", "unknown key 'accuracy_log_rng_sed'; did you mean accuracy_log_rng_seed?"),
        ("*.*.mod = 2", "did you mean mode?"),
        ("*.*.mode = 4", "'mode' takes 0 to 3"),
        ("*.*.mode=2", "a blank on both sides"),
        ("resnet50.*.mode = 2", "expected '*'"),
        ("*.*.qsl_rng_seed = 7975553102935885558", "would ignore it here"),
        ("*.*.accuracy_log_rng_seed = 1e3", "whole number"),
        ("*.*.performance_issue_same = yes", "whole number"),
    ],
)
def test_a_line_of_an_audit_that_loadgen_would_ignore_or_misread_is_refused(line: str, fragment: str) -> None:
    path = written(f"{line}\n")

    with pytest.raises(InputError) as refused:
        read_conf(path, "audit")

    assert fragment in str(refused.value)
    assert f"{path}:1: " in str(refused.value)


def test_the_shipped_user_conf_sets_nothing() -> None:
    assert read_conf(Path(__file__).parents[3] / "user.conf").values == {}
