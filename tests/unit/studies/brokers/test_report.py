"""What a study of brokers says of planted rounds: rows, sentences, page; and what is still to be measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sut.cli.emit import grid, print_parts
from sut.errors import InputError
from sut.results.samples import Samples
from sut.studies.brokers.forms import FAN_OUTS, Form, fan_outs_of, forms_of, why_not
from sut.studies.brokers.page import study_of
from sut.studies.brokers.report import HEADINGS, MEMORY_ONLY, lines_of, told_of
from sut.studies.brokers.rounds import BROKER, parts_of, round_of_line
from sut.studies.pages import keep_study, read_study
from tests.unit.studies.brokers.planted import planted, study

RATES = {"fused": {1: 100.0, 25: 10.0}, "redis": {1: 80.0, 25: 20.0}}


def test_a_row_has_the_medians_of_its_rounds_and_stands_beside_the_fused_form(tmp_path: Path) -> None:
    told = told_of(study(tmp_path, RATES, {"redis": 0.2}), 60)

    fused, redis = told["rows"][:2]
    assert (fused["form"], fused["against_fused"], fused["beyond_ns"]) == ("fused", None, None)
    assert (redis["frames_per_second"], redis["latency_ns"], redis["beyond_ns"]) == (80, 1e7, 0)
    assert (redis["broker_share"], redis["parts_ns"][BROKER]) == (pytest.approx(0.2), 2e6)
    assert (redis["bytes_per_frame"], redis["cpu_s_per_frame"], redis["busy_cores"]) == (600e3, 0.01, 0.8)
    assert redis["against_fused"]["ratio"] == pytest.approx(0.8, rel=0.01)


def test_the_first_sentence_decides_and_the_next_give_the_reason(tmp_path: Path) -> None:
    found = told_of(study(tmp_path / "a", RATES), 60)["words"]
    none = told_of(study(tmp_path / "b", RATES | {"redis": {1: 80.0, 25: 9.0}}), 60)["words"]
    few = told_of(study(tmp_path / "c", RATES, noise=(1.0, 1.01)), 60)["words"]

    assert "N* is 25 crops a frame (from 25 to 25, of those that were measured): there redis has 2 x (" in found[0]
    assert "there is no N* up to 25 crops a frame here: the best, redis, has 0.9 x (" in none[0]
    assert "cannot be told: against fused's redis has 2.01 x, no interval of so few rounds there" in few[0]
    assert none[2].startswith("at 25 crops a frame") and "fused 10 ms of CPU a frame, with 0.1 of " in none[2]


def test_a_kafka_without_disks_is_named_as_one(tmp_path: Path) -> None:
    rates = RATES | {"kafka": {1: 50.0, 25: 5.0}}

    assert MEMORY_ONLY in told_of(study(tmp_path / "a", rates, durable=False), 60)["words"]
    assert MEMORY_ONLY not in told_of(study(tmp_path / "b", rates), 60)["words"]


def test_the_file_becomes_a_page_with_both_charts_and_every_claim(tmp_path: Path) -> None:
    told = told_of(study(tmp_path, RATES, {"redis": 0.2}), 60)
    keep_study(tmp_path, "study brokers", told)

    page = read_study(tmp_path / "study.json", "s0")

    assert [figure.caption.partition(" by ")[0] for figure in page.figures] == [
        "Throughput at saturation",
        "Latency of one frame alone,",
    ]
    assert "fused: 1 100, 25 10; redis: 1 80, 25 20" in str(page.figures[0].svg)
    assert "25, redis: broker 2 ms, second model 8 ms" in str(page.figures[1].svg)
    assert len(page.tables[0].first.cells) == 4 and len(page.tables[1].first.cells) == 4


def test_a_study_without_a_round_is_a_page_too(tmp_path: Path) -> None:
    told = told_of(study(tmp_path, {"fused": {1: 1.0}, "redis": {1: 1.0}}, noise=()), 60)

    assert "no round has both the fused form and another" in told["words"][0]
    assert study_of(json.loads(json.dumps(told)), "s0").figures == []


def test_the_tables_fit_a_narrow_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rates = {"fused": {1: 12345.678, 10000: 0.01234}, "shared": {1: 1234.5678, 10000: 0.01034}}

    lines = lines_of(told_of(study(tmp_path, rates, {"shared": 0.123456}), 60)["rows"])
    print_parts(grid(headings, lines[caption]) for caption, headings in HEADINGS.items())

    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80 and not any("…" in line for line in shown)
    assert "12,346  ########################" in "\n".join(shown)


def test_rounds_go_there_and_back_again_and_what_is_kept_is_not_measured_again(tmp_path: Path) -> None:
    there = study(tmp_path, RATES, noise=(1.0,))
    there.rounds = 2

    assert [(number, fan_out, form.name) for number, fan_out, form in there.todo()] == [
        *((2, 25, "redis"), (2, 25, "fused"), (2, 1, "redis"), (2, 1, "fused"))
    ]


def test_a_round_is_read_as_it_was_written_and_nothing_else_is(tmp_path: Path) -> None:
    there = study(tmp_path, RATES)
    line = (tmp_path / "rounds.jsonl").read_text().splitlines()[1]

    assert round_of_line(line) == planted("fused", 1, 1, 100.0) == next(iter(there.kept.rows.values()))
    with pytest.raises(ValueError, match="Field required"):
        round_of_line("{}")


def test_every_stage_belongs_to_a_part_and_the_parts_add_up_around_the_median() -> None:
    stages = {"queue": 1, "decode": 2, "infer": 4, "crop": 8, "identify/wait": 16, "identify/infer": 32, "residual": 64}
    per_sample = {name: np.array([each, each, 1000]) for name, each in stages.items()}
    found = parts_of(Samples(np.zeros(3, np.int32), np.zeros(3, np.int64), np.array([127, 127, 7000]), per_sample))

    assert found == {"first model": 6, "crops": 8, "broker": 16, "second model": 32, "rest": 65}


def test_forms_are_in_one_order_and_the_fused_one_is_always_there() -> None:
    chosen = forms_of("kafka,memory", None, "kafka://broker:9092", durable=True)

    assert chosen == [Form("fused", "none"), Form("memory", "memory"), Form("kafka", "kafka://broker:9092", True)]
    assert [form.name for form in forms_of(None, None, None, durable=False)] == ["fused", "shared", "redis", "kafka"]
    assert fan_outs_of("9, 1,9") == [1, 9] and fan_outs_of(None) == [*FAN_OUTS]


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("rabbit", None, None, False), "--forms: unknown form 'rabbit'"),
        ((None, "kafka://a:1", None, False), "--redis: got kafka://a:1, expected a URL such as redis://"),
        ((None, None, None, True), "name it by --kafka URL"),
    ],
)
def test_what_is_no_form_is_refused(words: tuple[str | None, str | None, str | None, bool], fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        forms_of(*words)


@pytest.mark.parametrize("text", ["0", "1,x", "", "10001", "1..9"])
def test_what_is_no_fan_out_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--fan-outs: got '"):
        fan_outs_of(text)


def test_a_broker_that_is_not_there_is_one_line() -> None:
    reason = why_not(Form("redis", "redis://127.0.0.1:1"))

    assert reason is not None and "the Redis at redis://127.0.0.1:1 cannot be used" in reason and "\n" not in reason
    assert why_not(Form("fused", "none")) is None and why_not(Form("shared", "shared")) is None
