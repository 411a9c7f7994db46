"""``sut run --rules closed``: what breaks a rule is refused whole, what is finished is kept, LoadGen is not traced.

MLPerf's figures, data set and model are replaced by small ones, in every process that a run has.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sut.mlperf import official
from sut.mlperf.logs import ACCURACY, DETAIL, TRACE
from sut.process.cgroup import held_back
from tests.children import Finished
from tests.integration.support import Sut
from tests.integration.test_plans import TEST04
from tests.unit.models.test_identity import write as constant_model

LABEL = 5
PICTURES = 12

WORLD = """
from sut.mlperf import official
official.MIN_DURATION_S = 0.3
from dataclasses import replace
small = replace(official.BENCHMARKS["resnet50"], pictures={count}, performance_samples={count}, offline_samples=20)
official.BENCHMARKS = {{**official.BENCHMARKS, "resnet50": small}}
import sut.datasets.base as data
data.IMAGENET_PICTURES = {count}
data.IMAGENET_SHA256 = "{list_sum}"
import sut.models.identity as identity
identity.KNOWN = {{"{model_sum}": "resnet50"}}
"""
"""In a file of this name Python runs it first, in whichever process."""


class World:
    """A run by the rules, were they this small."""

    def __init__(self, sut: Sut) -> None:
        self.sut = sut
        self.pictures = sut.cwd / "imagenet"
        self.pictures.mkdir()
        draw = np.random.default_rng(1)
        names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, PICTURES + 1)]
        for name in names:
            encoded = cv2.imencode(".jpg", draw.integers(0, 256, (40, 48, 3), np.uint8))[1]
            (self.pictures / name).write_bytes(encoded.tobytes())
        listed = "".join(f"{name} {LABEL}\n" for name in names)
        (self.pictures / "val_map.txt").write_text(listed)
        self.model = constant_model(sut.cwd / "resnet50_v1.onnx", LABEL)
        self.conf = sut.cwd / "own.conf"
        self.conf.write_text("resnet50.Offline.min_query_count = 20\n")
        sums = {
            "list_sum": hashlib.sha256(listed.encode()).hexdigest(),
            "model_sum": hashlib.md5(self.model.read_bytes()).hexdigest(),
        }
        (sut.packages / "sitecustomize.py").write_text(WORLD.format(count=PICTURES, **sums))

    def arguments(self, *more: str | Path) -> list[str | Path]:
        model = ("--model", self.model, "--model-name", "resnet50", "--dataset-path", self.pictures)
        return [*model, "--rules", "closed", "--time", "0.3", "--user_conf", self.conf, *more]

    def run(self, *more: str | Path) -> Finished:
        """The arguments that come ``more`` win."""
        return self.sut.run(*self.arguments(*more))


@pytest.fixture
def world(sut: Sut) -> World:
    return World(sut)


def of(done: Finished, scenario: str, role: str = "performance") -> dict[str, Any]:
    [result] = [each for path, each in done.results.items() if path.parts[-3:-1] == (scenario, role)]
    return result


def test_a_run_by_the_rules_breaks_none_and_is_not_traced(world: World) -> None:
    done = world.run("--scenario", "SingleStream,Offline", "--debug")

    assert done.code == 0, done.err
    assert (
        "2 runs, at least 9 s in all; longer where a model is slow: SingleStream asks at least 64 queries" in done.err
    )
    for scenario in ("SingleStream", "Offline"):
        result = of(done, scenario)
        assert (result["valid"], result["rules_broken"], result["rules_compliant"]) == (True, [], True)
        assert result["plan"]["trace"] is False
        assert "issue_delay" not in result["stages_ns"]
    assert not any("issue_start_ns" in trace.read_text() for trace in world.sut.output.rglob(TRACE))


PLANTED = """
from dataclasses import replace
import sut.run.outcome as outcome
read = outcome.read_detail
def faster(folder):
    detail = read(folder)
    times = [key for key in detail.values if "latency_" in key and key[:6] in ("result", "early_")]
    return replace(detail, values=detail.values | {key: detail.values[key] // 2 for key in times})
outcome.read_detail, outcome.read_summary = faster, lambda folder: None
"""
"""The log of a run that was twice as fast."""


@pytest.mark.first(1)
@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream"])
def test_the_log_of_a_faster_run_is_not_that_of_the_ledger(world: World, scenario: str) -> None:
    done = world.sut.run(*world.arguments("--scenario", scenario), prologue=PLANTED)

    assert done.code == 3
    told = [reason.partition(" (")[0] for reason in done.result["invalid_reasons"]]
    assert "LoadGen's percentiles and the ledger do not agree" in told


def test_everything_that_breaks_a_rule_is_named_before_the_run(world: World) -> None:
    conf = world.sut.cwd / "short.conf"
    conf.write_text("*.Server.target_latency = 100\n*.SingleStream.min_query_count = 3\n*.Server.max_duration = 9000\n")
    asked = ("--scenario", "SingleStream,MultiStream,Server", "--time", "0.1", "--samples-per-query", "4")
    others = ("--model", "resnet50", "--weights", "random")
    data = ("--count", "7", "--performance-sample-count", "5", "--user_conf", conf, "--set", "relax_server=true")

    done = world.run(*asked, *others, *data)

    assert done.code == 1
    assert done.errors == [
        "random weights",
        "data set imagenet has 7 pictures, not ImageNet's 12",
        "min_duration 0.1 s < 0.3 s",
        "performance_sample_count 5 < 12",
        "SingleStream: 3 queries < 64",
        "MultiStream: samples_per_query 4 is not 8",
        "Server: max_duration 9 s is set, which may end the run early",
        "Server: Server latency bound 100 ms > 15 ms",
        "Server: Server rate is a quarter of the calibrated one, not the highest",
        "Server: relax_server lets Server's latency bound be more than 15 ms",
        "--rules closed: nothing was run, as the above would break 10 rules of MLPerf's closed division: mend it, or "
        "leave --rules out",
    ]
    assert not world.sut.output.exists()


def test_int8_is_refused_before_it_is_calibrated_and_with_all_else(world: World) -> None:
    own = world.sut.cwd / "list.txt"
    own.write_text("ILSVRC2012_val_00000001.JPEG\n")

    without = world.run("--precision", "int8", "--time", "0.1")
    with_own = world.run("--precision", "int8", "--calibration-list", own)

    assert (without.code, with_own.code) == (1, 1)
    assert without.errors[0] == "min_duration 0.1 s < 0.3 s"
    assert without.errors[1].startswith("the rules of the closed division take MLCommons' calibration pictures only")
    assert with_own.errors[0].startswith(f"{own} is not MLCommons' calibration list (1 entries)")
    assert not any("calibrat" in line for line in with_own.err.splitlines() if not line.startswith("error: "))


def test_an_audit_of_mlperfs_is_part_of_it_and_any_other_is_refused(world: World) -> None:
    audit = world.sut.cwd / "audit.config"
    audit.write_text(TEST04)

    done = world.run("--audit_conf", audit)
    again = world.run("--audit_conf", audit)

    assert (done.code, again.code) == (0, 0), done.err + again.err
    assert of(done, "SingleStream", "TEST04")["rules_broken"] == ["an audit (TEST04) is no result"]
    assert "SingleStream TEST04: kept, finished 20" in again.err

    audit.write_text("*.*.mode = 2\n*.*.performance_issue_same = 1\n")
    other = world.run("--audit_conf", audit)

    assert other.code == 1
    assert other.errors[0] == f"an audit ({audit}) is no result"


def test_what_only_the_runs_process_finds_ends_it_before_loadgen_starts(world: World) -> None:
    first, second = sorted(world.pictures.glob("*.JPEG"))[:2]
    second.write_bytes(first.read_bytes())

    done = world.run("--scenario", "SingleStream,Offline")

    assert done.code == 1
    told = "--rules closed: LoadGen was not started, because of 1 of 12 pictures that were loaded are equal to others"
    assert done.error.startswith(f"SingleStream performance: {told}")
    [result] = done.results.values()
    assert result["valid"] is False and result["samples"] == 0
    assert not list(world.sut.output.rglob(DETAIL))


def test_foreign_tensors_end_an_accuracy_run_too(world: World) -> None:
    tensors = world.sut.cwd / "tensors"
    tensors.mkdir()
    for path in world.pictures.glob("*.JPEG"):
        np.save(tensors / f"{path.name}.npy", np.zeros((3, 224, 224), np.float32))

    done = world.run("--accuracy", "--preprocessed_dir", tensors, "--use_preprocessed_dataset")

    assert done.code == 1
    assert "LoadGen was not started, because of " in done.error
    assert "; tensors made elsewhere: 4, in the preprocessed folder " in done.error


@pytest.mark.slow
def test_what_is_finished_is_kept_and_the_rest_is_run(world: World) -> None:
    scenarios = ("--scenario", "SingleStream,Offline")
    first = world.run()
    accuracy = world.run("--accuracy", "--scenario", "SingleStream")

    assert (first.code, accuracy.code) == (0, 0), first.err + accuracy.err
    assert "over the whole data set once: how long that takes is in the plan, once it is calibrated" in accuracy.err
    started = of(first, "SingleStream")["started"]

    done = world.run(*scenarios, "--json")

    assert done.code == 0, done.err
    assert "SingleStream performance: kept, finished 20" in done.err
    assert "at least 4 s; longer where a model is slow: Offline asks at least 20 samples" in done.err
    rows = json.loads(done.out)["rows"]
    assert [(row["scenario"], row["valid"]) for row in rows] == [("SingleStream", True), ("Offline", True)]
    assert rows[0]["started"] == started == of(done, "SingleStream")["started"]

    again = world.run("--accuracy", "--scenario", "SingleStream")
    assert "SingleStream accuracy: kept, finished 20" in again.err
    assert again.code == 0

    anew = world.run(*scenarios, "--overwrite")
    assert "kept" not in anew.err
    assert of(anew, "SingleStream")["started"] > started


def edit(**values: Any) -> Callable[[World, Path], None]:
    """Change fields of the result; to a mapping adds what is given."""

    def change(world: World, file: Path) -> None:
        result = json.loads(file.read_text())
        for key, value in values.items():
            result[key] = result[key] | value if isinstance(value, dict) else value
        file.write_text(json.dumps(result))

    return change


def cut_log(world: World, file: Path) -> None:
    log = file.with_name(DETAIL)
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-3]))


def change_conf(world: World, file: Path) -> None:
    world.conf.write_text("resnet50.Offline.min_query_count = 21\n")


OTHERS: dict[str, tuple[Callable[[World, Path], None], str]] = {
    "rules": (edit(rules_broken=["the CPU was throttled"], rules_compliant=False), "the CPU was throttled"),
    "model": (edit(model_sha256="0" * 64), "the model was another: SHA-256 0000"),
    "machine": (edit(system={"cores": 4096}), "it is of another machine (usable cores: 4096"),
    "version": (edit(versions={"loadgen-vision-sut": "0.0.1"}), "loadgen-vision-sut is 0."),
    "config": (edit(config={"known_models": {"a": "b"}}), "known_models is {}, and was"),
    "no result": (lambda world, file: file.write_text('{"schema": 1}'), "no whole result"),
    "log": (cut_log, "LoadGen's log has no end"),
    "user.conf": (change_conf, "own.conf has changed since"),
}


@pytest.mark.slow
def test_what_was_interrupted_goes_on_where_it_stopped(world: World) -> None:
    command = ("--scenario", "SingleStream,Offline", "--time", "1.9")

    def offline_runs() -> bool:
        return any(path.stat().st_size for path in world.sut.output.rglob("Offline/performance/mlperf_log_detail.txt"))

    with world.sut.started(*world.arguments(*command)) as running:
        running.wait_until(offline_runs)
        running.signal(signal.SIGINT)
        stopped = running.finish()
    done = world.run(*command)

    assert (stopped.code, done.code) == (130, 0), stopped.err + done.err
    assert "SingleStream performance: kept, finished 20" in done.err
    assert "Offline performance: plan: " in done.err and "SingleStream performance: plan: " not in done.err
    assert [line.split()[:2] for line in done.out.splitlines()[1:3]] == [
        ["SingleStream", "VALID"],
        ["Offline", "VALID"],
    ]


@pytest.mark.slow
def test_what_does_not_stand_for_the_run_is_run_again_and_told_why(world: World) -> None:
    done = world.run()
    [place] = done.results
    file = place if place.is_absolute() else world.sut.output / place

    for change, why in OTHERS.values():
        change(world, file)
        done = world.run()

        assert done.code == 0, done.err
        [told] = [line for line in done.err.splitlines() if "the earlier run does not stand for it: " in line]
        assert told.startswith("SingleStream performance: run again, as ") and why in told
    # The cores that a quota leaves are the system's.
    edit(rules_broken=[held_back(1, 100, 50)], rules_compliant=False)(world, file)
    assert "SingleStream performance: kept, finished 20" in world.run().err


@pytest.mark.slow
def test_answers_that_are_gone_are_made_again(world: World) -> None:
    config = world.sut.cwd / "audit.config"
    config.write_text("".join(f"*.*.{key} = {value}\n" for key, value in official.AUDITS["TEST01"].items()))
    for role, options in (
        ("accuracy", ("--accuracy", "--scenario", "SingleStream")),
        ("TEST01", ("--audit_conf", config)),
    ):
        assert world.run(*options).code == 0
        [log] = world.sut.output.rglob(f"SingleStream/{role}/{ACCURACY}")
        log.unlink()

        again = world.run(*options)

        assert again.code == 0, again.err
        assert f"SingleStream {role}: run again, as " in again.err and "cannot read the accuracy log" in again.err
        assert f"SingleStream {role}: kept" in world.run(*options).err


@pytest.mark.slow
def test_a_run_that_did_not_come_to_its_end_is_run_again_without_a_word(world: World) -> None:
    done = world.run()
    [place] = done.results
    file = place if place.is_absolute() else world.sut.output / place
    interrupted = {"valid": False, "invalid_reasons": ["interrupted after 0.1 s, 3 samples"], "first_error": None}
    file.write_text(json.dumps(json.loads(file.read_text()) | interrupted))

    done = world.run()

    assert done.code == 0
    assert "kept" not in done.err and "run again" not in done.err


def test_without_the_rules_nothing_is_kept(world: World) -> None:
    options = ("--model", world.model, "--model-name", "resnet50", "--dataset-path", world.pictures, "--time", "0.3")

    done = [world.sut.run(*options) for _ in range(2)]

    assert [each.code for each in done] == [0, 0]
    assert len(done[1].results) == 2
    assert "kept" not in done[1].err
