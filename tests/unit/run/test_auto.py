"""Lanes, threads and batch where they are auto: the guess, what overrules it, and what is kept of it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sut.config import SCENARIOS, RunConfig, make_config
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.choice import Choice, prior
from sut.pipeline.system import SUT
from sut.results.quiet import Quiet, look
from sut.results.schema import Metric, Result
from sut.run import trial as module
from sut.run import tried
from sut.run.auto import ChoiceRun, Trial, candidates, decide, fits
from sut.run.trial import settle
from sut.run.tried import Settled
from tests.unit.small_models import RECIPE_FILE, SIZE, pictures, write_classifier

MB = 2**20
PICTURES = 40
RECIPE = f"size: {SIZE}\n{RECIPE_FILE}"


# ---- the guess


@pytest.mark.parametrize(
    ("scenario", "cores", "megabytes", "expected"),
    [
        ("Offline", 1, 20, Choice(1, 1, 4)),
        ("Offline", 2, 20, Choice(2, 1, 4)),
        ("Offline", 64, 20, Choice(8, 8, 4)),
        ("Offline", 8, 400, Choice(4, 2, 4)),
        ("Offline", 8, 2000, Choice(1, 8, 4)),
        ("Offline", 2, None, Choice(1, 2, 8)),
        ("SingleStream", 64, 20, Choice(1, 64, 8)),
        ("MultiStream", 2, 20, Choice(1, 2, 8)),
        ("Server", 2, 20, Choice(1, 2, 8)),
    ],
)
def test_the_prior(scenario: str, cores: int, megabytes: int | None, expected: Choice) -> None:
    config = make_config({"scenario": scenario})

    assert prior(config, cores, None if megabytes is None else megabytes * MB) == expected


def test_by_the_rules_of_the_network_division_servers_queries_go_one_by_one() -> None:
    asked = {"rules": "network", "backend": "kserve", "device": "grpc://192.0.2.7:8001"}

    found = {
        scenario: prior(make_config({"scenario": scenario, **asked}), 2, None) for scenario in ("Server", "Offline")
    }

    assert {scenario: choice.max_batchsize for scenario, choice in found.items()} == {"Server": 1, "Offline": 8}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("cores", [1, 2, 6, 64])
@pytest.mark.parametrize("asked", [{}, {"lanes": 3}, {"threads": 2}, {"max_batchsize": 5}, {"lanes": 1, "threads": 1}])
def test_candidates_are_few_and_leave_what_is_set(scenario: str, cores: int, asked: dict[str, int]) -> None:
    config = make_config({"scenario": scenario, **asked})

    found = candidates(config, cores, 20 * MB)

    assert found[0] == prior(config, cores, 20 * MB)
    assert 1 <= len(found) == len(set(found)) <= 3
    for choice in found:
        assert fits(choice, config)
        assert {"lanes", "threads"} & asked.keys() or choice.lanes * choice.threads <= cores


def test_weights_count_as_they_are_executed() -> None:
    fp32, bf16 = (make_config({"scenario": "Offline", "precision": precision}) for precision in ("fp32", "bf16"))

    assert (prior(fp32, 8, 400 * MB), prior(bf16, 8, 400 * MB)) == (Choice(4, 2, 4), Choice(8, 1, 8))


def test_where_the_batch_is_set_lanes_are_tried() -> None:
    config = make_config({"scenario": "Offline", "max_batchsize": 32})

    assert candidates(config, 6, 20 * MB) == [Choice(6, 1, 32), Choice(1, 6, 32)]


def test_on_another_device_cores_decide_nothing() -> None:
    config = make_config({"scenario": "Offline", "device": "cuda"})

    assert candidates(config, 8, 20 * MB) == [Choice(1, 8, 8)]


# ---- what overrules it

FIRST, OTHER, THIRD = (Choice(2, 1, size) for size in (8, 16, 4))
SAME = [100.0, 103.0, 98.0, 101.0, 99.0, 102.0]
MORE = [130.0, 131.0, 127.0, 129.0, 133.0, 128.0]


def trial(*rounds: Sequence[float]) -> Trial:
    return Trial(5.0, [FIRST, OTHER, THIRD], [list(each) for each in rounds])


def by_turns(**figures: Sequence[float]) -> list[ChoiceRun]:
    """Runs of choices in turn, a minute apart."""
    choices = {"first": FIRST, "other": OTHER, "third": THIRD, "unasked": Choice(1, 2, 8)}
    rounds = zip(*figures.values(), strict=True)
    turns = [turn for each in rounds for turn in zip(figures, each, strict=True)]
    return [ChoiceRun(choices[name], figure, 60.0 * number) for number, (name, figure) in enumerate(turns)]


@pytest.mark.parametrize(
    ("found", "runs", "higher", "expected"),
    [
        (None, [], True, (FIRST, "prior")),
        (trial(SAME, SAME[::-1], SAME[1:] + SAME[:1]), [], True, (FIRST, "prior")),
        (trial(SAME, MORE, SAME[::-1]), [], True, (OTHER, "trial")),
        (trial(SAME, MORE, SAME[::-1]), [], False, (FIRST, "prior")),
        (trial(MORE, SAME, SAME), [], True, (FIRST, "trial")),
        (trial(SAME[:3], MORE[:3], []), [], True, (FIRST, "prior")),
        (trial(SAME, [], MORE), [], True, (THIRD, "trial")),
        (trial(SAME, MORE, SAME), by_turns(other=SAME, unasked=MORE), True, (Choice(1, 2, 8), "runs")),
        (trial(SAME, MORE, SAME), by_turns(other=SAME, first=SAME[::-1]), True, (OTHER, "trial")),
        (None, by_turns(first=MORE, third=SAME), False, (THIRD, "runs")),
        (None, by_turns(third=MORE), True, (FIRST, "prior")),
    ],
)
def test_the_prior_is_overruled_only_beyond_the_spread(
    found: Trial | None, runs: list[ChoiceRun], higher: bool, expected: tuple[Choice, str]
) -> None:
    assert decide([FIRST, OTHER, THIRD], found, runs, higher) == expected


@pytest.mark.parametrize("minutes", [1, 24 * 60])
def test_figures_of_a_faster_day_overrule_nothing(minutes: float) -> None:
    when_fast = [ChoiceRun(OTHER, figure, number) for number, figure in enumerate(MORE)]
    since = [ChoiceRun(FIRST, figure, 60.0 * minutes + number) for number, figure in enumerate(SAME)]

    assert decide([FIRST, OTHER, THIRD], None, [*when_fast, *since], True) == (FIRST, "prior")


def test_runs_far_apart_are_no_pairs() -> None:
    rare = [replace(run, at=120.0 * run.at) for run in by_turns(first=SAME, other=MORE)]

    assert decide([FIRST, OTHER, THIRD], None, rare, True) == (FIRST, "prior")


def test_a_trial_that_ended_within_a_round_has_its_rounds_beside_each_other() -> None:
    slowing = [200.0, 190.0, 180.0, 170.0, 160.0, 150.0]

    assert decide([FIRST, OTHER, THIRD], trial([*slowing, 140.0], slowing, []), [], True)[0] == FIRST


# ---- warm-up, and what is kept of it


def an_assembly(tmp_path: Path, seed: int = 1, **config: Any) -> Assembly:
    """A small classifier with its recipe, and plain pictures, which its classes share."""
    folder = tmp_path / "pictures"
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures(PICTURES)):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    told = {
        "model": str(write_classifier(tmp_path / "small.onnx", seed=seed)),
        "recipe": str(tmp_path / "recipe.yaml"),
        "dataset": "folder",
        "dataset_path": folder,
        "scenario": "Offline",
    }
    return assemble(make_config(told | config))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "LEAST_S", 0.0)
    monkeypatch.setattr(module, "MOST_S", 500.0)
    monkeypatch.setattr(module, "_WINDOW_S", 0.001)
    monkeypatch.setattr(module, "_MOST_ROUNDS", 2)
    monkeypatch.setattr("sut.pipeline.assembly.usable_cores", lambda: 2)
    monkeypatch.setattr(module, "is_undisturbed", lambda since: None)
    return tmp_path / "cache" / "auto"


def settled(parts: Assembly, seconds: float = 500.0, is_quiet: bool = True) -> tuple[Settled, bool]:
    """What was chosen, and whether anything was tried for it."""
    begun: list[bool] = []
    found = settle(parts, 8, seconds, is_quiet, lambda: begun.append(True), lambda: None)
    return found, bool(begun)


def test_the_second_start_tries_nothing(tmp_path: Path, cache: Path) -> None:
    parts = an_assembly(tmp_path)

    first, was_tried = settled(parts)
    second, was_tried_again = settled(parts)

    assert (was_tried, was_tried_again) == (True, False)
    assert second.choice == first.choice == Choice(2, 1, 4)  # two rounds cannot overrule anything
    assert (first.why, second.why) == (
        "guessed, and no other was faster beyond the spread; --lanes fixes it",
        "guessed; --lanes fixes it",
    )
    [file] = cache.iterdir()
    [kept] = json.loads(file.read_text())["trials"]
    assert [len(rounds) for rounds in kept["rounds"]] == [2, 2, 2]


def test_what_was_tried_on_a_busy_machine_is_tried_again_on_a_quiet_one(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = an_assembly(tmp_path)
    monkeypatch.setattr(module, "is_undisturbed", lambda since: False)
    settled(parts)

    _, tried_while_busy = settled(parts, is_quiet=False)
    monkeypatch.setattr(module, "is_undisturbed", lambda since: True)
    _, tried_when_quiet = settled(parts)
    _, tried_once_more = settled(parts)

    assert (tried_while_busy, tried_when_quiet, tried_once_more) == (False, True, False)


def test_a_candidate_that_ends_the_process_is_tried_twice_at_the_most(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object) -> Trial:
        raise SystemExit

    parts = an_assembly(tmp_path)
    monkeypatch.setattr(module, "_try", crash)
    for _ in range(2):
        with pytest.raises(SystemExit):
            settled(parts)

    found, was_tried = settled(parts)

    assert not was_tried and found.why.startswith("guessed")


def test_others_at_work_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Quiet(0.0, own_wait_share=0.9, steal_share=0.0)
    monkeypatch.setattr(module, "between", lambda *looks: found)

    assert module.is_undisturbed(look(os.getppid())) is True
    found = Quiet(0.2, own_wait_share=0.0, steal_share=0.0)
    assert module.is_undisturbed(look(os.getppid())) is False


def test_what_is_kept_decides(tmp_path: Path, cache: Path) -> None:
    parts = an_assembly(tmp_path)
    key = tried.key_of(parts, 8)
    tried.keep_trial(key, Trial(500.0, candidates(parts.config, 2, parts.model_bytes), [SAME, MORE, SAME[::-1]]))

    found, was_tried = settled(parts)

    assert not was_tried
    assert found.line("Offline") == "2 lanes x 1 thread, batch 8: kept from an earlier run; --lanes fixes it"


@pytest.mark.parametrize(
    ("config", "seconds", "why"),
    [
        ({"lanes": 1, "threads": 1, "max_batchsize": 4}, 5.0, "as asked"),
        ({"scenario": "SingleStream", "threads": 2}, 5.0, "as asked"),
        ({"lanes": 1, "max_batchsize": 4}, 5.0, "guessed; --threads fixes it"),
        ({"scenario": "Server"}, 5.0, "guessed; --lanes fixes it"),
        ({}, 0.0, "guessed; --lanes fixes it"),
    ],
)
def test_nothing_is_tried_where_nothing_could_come_of_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], seconds: float, why: str
) -> None:
    monkeypatch.setattr(module, "LEAST_S", 1.0)

    found, was_tried = settled(an_assembly(tmp_path, **config), seconds)

    assert (was_tried, found.why) == (False, why)
    assert not cache.exists()


def _without_figures(file: Path) -> None:
    kept = json.loads(file.read_text())
    kept["trials"][0]["rounds"] = []
    file.write_text(json.dumps(kept))


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text("{"),
        lambda file: file.write_text(file.read_text().replace('"lanes": 2', '"lanes": -2')),
        lambda file: file.write_text(file.read_text().replace('"precision": "fp32"', '"precision": "bf16"')),
        _without_figures,
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["cut off", "impossible", "another system's", "without figures", "a folder"],
)
def test_a_file_that_cannot_be_believed_is_as_good_as_none(tmp_path: Path, cache: Path, damage: Any) -> None:
    parts = an_assembly(tmp_path)
    settled(parts)
    [file] = cache.iterdir()
    damage(file)

    found, was_tried = settled(parts)

    assert was_tried
    assert found.choice == Choice(2, 1, 4)


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = an_assembly(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "file"))

    assert settled(parts)[0].choice == Choice(2, 1, 4)


def test_a_candidate_that_cannot_be_run_is_out_of_it(tmp_path: Path, cache: Path, monkeypatch: Any) -> None:
    parts = an_assembly(tmp_path)

    def window(scenario: str, system: SUT, loaded: range, per_query: int, max_batch: int, *rest: Any) -> float:
        if max_batch == 8:
            raise MemoryError
        return 1.0

    monkeypatch.setattr(module, "window", window)

    settled(parts)

    [file] = cache.iterdir()
    [kept] = json.loads(file.read_text())["trials"]
    assert [len(rounds) for rounds in kept["rounds"]] == [2, 0, 2]


# ---- finished runs


def a_result(config: RunConfig, choice: Choice, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "scenario": config.scenario,
        "mode": "performance",
        "valid": True,
        "metric": Metric(name="samples_per_second", value=10.0, higher_is_better=True),
        "samples_per_second": 10.0,
        "latency_ns": {"p90": 10, "p99": 11},
        "duration_s": 2.0,
        "quiet": None,
        "config": config.model_dump(mode="json"),
        "plan": {"lanes": choice.lanes, "threads": choice.threads, "max_batchsize": choice.max_batchsize},
    }
    return Result.model_construct(**fields | changes)


def in_turns(parts: Assembly, key: tried.Key) -> Choice:
    """Keep runs of two choices that followed each other; the one that was better."""
    better = Choice(1, 2, 32)
    for same, more in zip(SAME, MORE, strict=True):
        tried.keep_run(key, a_result(parts.config, Choice(2, 1, 4), samples_per_second=same))
        tried.keep_run(key, a_result(parts.config, better, samples_per_second=more))
    return better


def test_candidates_that_memory_does_not_hold_are_not_tried_be_it_for_the_second_model(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = an_assembly(tmp_path)
    free = 36 * (parts.model_bytes or 0)  # a half of it holds one and a half times what three candidates take
    monkeypatch.setattr(module, "free_memory", lambda _: free)

    assert settled(parts)[1]
    assert not settled(replace(parts, second=parts))[1]


def test_finished_runs_overrule_what_they_disprove(tmp_path: Path, cache: Path) -> None:
    parts = an_assembly(tmp_path)
    key = tried.key_of(parts, 8)
    in_turns(parts, key)

    found, _ = settled(parts, 0.0)
    asked, _ = settled(an_assembly(tmp_path, lanes=2), 0.0)

    assert found.line("Offline") == "1 lane x 2 threads, batch 32: kept from earlier runs; --lanes fixes it"
    assert asked.choice == Choice(2, 1, 4)


def test_figures_of_other_pictures_or_of_fewer_samples_say_nothing(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "other").mkdir()
    here, there = (an_assembly(each, boundary="jpeg") for each in (tmp_path, tmp_path / "other"))
    few = an_assembly(tmp_path, boundary="jpeg", performance_sample_count=1)
    slow = an_assembly(tmp_path, boundary="jpeg", slowdown={"infer": 2.0})
    ready, elsewhere = (an_assembly(each) for each in (tmp_path, tmp_path / "other"))

    assert len({json.dumps(tried.key_of(each, 8)) for each in (here, there, few, slow)}) == 4
    two = {"boundary": "jpeg", "identify": "efficientnet-lite0", "identify_backend": "simulated", "fan_out": "2"}
    others = ({}, {"fan_out": "3"}, {"channel": "memory"}, {"identify_options": {"a_ms": 1}}, {"identify_batch": 2})
    assert len({json.dumps(tried.key_of(an_assembly(tmp_path, **two | each), 8)) for each in others}) == len(others)
    assert tried.key_of(ready, 8) == tried.key_of(elsewhere, 8), "at the boundary tensor all pictures are of one size"


@pytest.mark.parametrize(
    ("scenario", "changes"),
    [
        ("Offline", {"valid": False}),
        ("Offline", {"mode": "accuracy"}),
        ("Offline", {"duration_s": 0.3}),
        ("Offline", {"quiet": Quiet(0.5, 0.0, 0.0)}),
        ("Offline", {"plan": None}),
        ("Server", {}),
    ],
)
def test_a_run_that_says_nothing_is_not_kept(
    tmp_path: Path, cache: Path, scenario: str, changes: dict[str, Any]
) -> None:
    parts = an_assembly(tmp_path, scenario=scenario)
    key = tried.key_of(parts, 8)

    tried.keep_run(key, a_result(parts.config, Choice(2, 1, 4), **changes))

    assert tried.read(key).runs == []


def test_what_is_kept_has_an_end(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried, "_MOST_FILES", 2)
    monkeypatch.setattr(tried, "_MOST_RUNS", 6)
    config = RunConfig(scenario="Offline")
    for lanes in (*range(2, 9), *[1] * 25):
        tried.keep_run({"system": 1}, a_result(config, Choice(lanes, 1, 8)))

    assert [each.choice.lanes for each in tried.read({"system": 1}).runs] == [5, 6, 7, 8, 1, 1]
    for system in range(2, 5):
        tried.keep_run({"system": system}, a_result(config, Choice(1, 1, 8)))
    assert len(list(cache.iterdir())) == 2


def test_what_was_chosen_by_runs_stays_chosen_when_it_alone_is_run(tmp_path: Path, cache: Path) -> None:
    parts = an_assembly(tmp_path)
    key = tried.key_of(parts, 8)
    better = in_turns(parts, key)
    for _ in range(400):
        tried.keep_run(key, a_result(parts.config, better))

    assert settled(parts, 0.0)[0].choice == better


def test_runs_that_were_kept_without_their_time_say_nothing(tmp_path: Path, cache: Path) -> None:
    parts = an_assembly(tmp_path)
    key = tried.key_of(parts, 8)
    tried.keep_run(key, a_result(parts.config, Choice(2, 1, 4)))
    [file] = cache.iterdir()
    old = [{"choice": {"lanes": lanes, "threads": 1, "max_batchsize": 4}, "figures": MORE} for lanes in (1, 2)]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 1, "runs": old}))

    assert tried.read(key).runs == []
    assert settled(parts, 0.0)[0].why == "guessed; --lanes fixes it"


# ---- labels


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_all_candidates_give_a_model_drawn_at_random_the_same_labels(tmp_path: Path, cache: Path, backend: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    labels: dict[tuple[str, Choice], list[bytes]] = {}

    for scenario in SCENARIOS:
        parts = an_assembly(tmp_path, seed, scenario=scenario, mode="accuracy", backend=backend)
        for choice in candidates(parts.config, 4, parts.model_bytes):
            labels[scenario, choice] = answers(parts, choice)

    assert len(labels) > len(SCENARIOS)
    assert len(set(next(iter(labels.values())))) > 1, seed
    assert all(each == next(iter(labels.values())) for each in labels.values()), (seed, labels)


def answers(parts: Assembly, choice: Choice) -> list[bytes]:
    """The answer to each picture, asked eight at a time as LoadGen asks, but for the whole of Offline."""
    found: dict[int, bytes] = {}

    def complete(ids: Sequence[int], payloads: Any) -> int:
        found.update(zip(ids, (np.asarray(each).tobytes() for each in payloads), strict=True))
        return 0

    with SUT(choice.apply(parts.config), complete=complete, assembly=parts) as sut:
        sut.library.load(range(PICTURES))
        step = {"Offline": PICTURES, "MultiStream": 8}.get(parts.config.scenario, 1)
        for at in range(0, PICTURES, step):
            ids = range(at, at + step)
            sut.issue(ids, list(ids))
    return [found[number] for number in range(PICTURES)]
