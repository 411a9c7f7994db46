"""The parts of the paper's claims: what is asked of other studies, and which figures come of what they told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sut.cli.console import BriefConsole
from sut.config import RunConfig, make_config
from sut.errors import ExitCode, RunError, SetupError
from sut.studies.beyond_inference import lab as labs
from sut.studies.beyond_inference import parts
from sut.studies.beyond_inference.lab import Lab
from sut.studies.beyond_inference.paper import CLAIMS
from sut.studies.beyond_inference.parts import PARTS
from sut.studies.breakdown.cells import FULL, LOADED, ZERO, drives, settled
from sut.studies.claims import UntestableError, judged
from sut.studies.driving.driven import Drive, Relative
from sut.studies.ladder.rungs import DEFAULT, read_ladder
from sut.studies.models.study import Measured
from sut.studies.sweeping.findings import closed_findings
from sut.studies.sweeping.study import SweepResult
from tests.unit.studies.breakdown.samples import samples
from tests.unit.studies.test_models import result
from tests.unit.studies.test_sweeping import MS, closed

NO_GPU = "there is no GPU"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Lab]:
    monkeypatch.setattr(labs, "generated_pictures", lambda name, say: {"dataset": "demo"})

    def make(gpu: bool = False, own_ladder: bool = False, **settings: Any) -> Lab:
        base = make_config({"output": tmp_path, **settings})
        here, no_gpu = tmp_path / "here", None if gpu else NO_GPU
        return Lab(base, read_ladder(DEFAULT)[0], base, own_ladder, 4, here, BriefConsole(), no_gpu=no_gpu)

    return make


def verdicts(found: dict[str, labs.Found], *keys: str, rounds: int = 4) -> list[str]:
    """Of claims whose parts have measured the same in so many rounds."""
    figures = {
        part: {name: values if len(values) > 1 else values * rounds for name, values in each.figures.items()}
        for part, each in found.items()
    }
    return [judged(claim, figures, {})[0] for key in keys for claim in CLAIMS if claim.key == key]


def test_a_config_is_the_base_over_pictures_and_keeps_its_files_together(lab: Callable[..., Lab]) -> None:
    here = lab(backend="simulated", preprocess="simulated", preprocess_options={"decode_ms": 5}, power_log="meter.csv")

    config, on_gpu = here.config("medium"), here.config("medium", "gpu")
    assert (config.boundary, config.dataset, config.power_log) == ("jpeg", "demo", None)
    assert config.output == here.directory / "runs" and config.preprocess_options == {"decode_ms": 5}
    assert set(on_gpu.preprocess_options.values()) == {0} and lab().config("medium", "gpu").preprocess == "cuda"


def test_another_model_has_the_system_and_nothing_of_the_first_model(lab: Callable[..., Lab]) -> None:
    given = {"backend": "openvino", "preprocess": "fused", "lanes": 2, "precision": "int8", "model_name": "mine"}

    other = lab(**given).other_model("vit-b")
    assert (other.backend, other.preprocess, other.lanes) == ("openvino", "fused", 2)
    assert (other.model, other.weights, other.precision, other.model_name) == ("vit-b", "random", "fp32", None)


def test_devices_are_counted_up_to_four_of_a_kind(lab: Callable[..., Lab]) -> None:
    assert lab(backend="simulated").devices == 4 and labs.several_devices(lab(backend="simulated")) is None
    assert lab(backend="simulated", device="sim:0,sim:1").devices == 2
    assert labs.several_devices(lab()) == "the backend onnxruntime has one device of its kind here"


def test_why_there_is_no_gpu_its_preprocessor_says(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RunConfig] = []

    def assemble(config: RunConfig, *_: object) -> None:
        asked.append(config)
        raise SetupError(NO_GPU)

    monkeypatch.setattr(labs, "assemble", assemble)
    here = lab(gpu=True)
    here.look_for_gpu()
    assert here.no_gpu == NO_GPU and [config.preprocess for config in asked] == ["cuda"]


@pytest.mark.parametrize(
    ("part", "settings", "why"),
    [
        ("latency-medium-gpu", {}, NO_GPU),
        ("latency-large-gpu", {"gpu": True}, None),
        ("devices-gpu", {"backend": "simulated"}, NO_GPU),
        ("devices-gpu", {"backend": "simulated", "gpu": True}, None),
        ("energy-gpu", {"power_log": "meter.csv"}, NO_GPU),
        ("energy", {"power_log": "meter.csv"}, None),
        ("models", {"backend": "simulated"}, "the backend simulated takes as planted whatever the model is"),
        ("models", {}, None),
        ("ladder", {}, None),
        ("ladder", {"backend": "simulated", "own_ladder": True}, None),
        ("ladder", {"backend": "simulated"}, "the backend simulated has no runtimes to climb"),
        ("concurrency", {"backend": "simulated"}, "the backend simulated has no memory"),
    ],
)
def test_what_a_machine_cannot_measure_is_known_before(
    part: str, settings: dict[str, Any], why: str | None, lab: Callable[..., Lab]
) -> None:
    found = PARTS[part].why_not(lab(**settings))
    assert found is None if why is None else str(found).startswith(why)


@pytest.mark.parametrize(("meters", "why"), [([], "energy is not measured: "), ([object()], None)])
def test_energy_needs_a_meter(
    meters: list[object], why: str | None, lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def opened(gpus: object) -> Any:
        yield meters, {}

    monkeypatch.setattr(parts, "opened", opened)
    found = PARTS["energy"].why_not(lab(backend="simulated", preprocess="simulated"))
    assert found is None if why is None else str(found).startswith(why)


@pytest.mark.parametrize(("requests", "waiting"), [(100, 0.75), (99, None)])
def test_shares_are_those_of_the_median_request_and_of_the_slowest(
    requests: int, waiting: float | None, lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One of three is held up: it does not count, nor would it in a mean of a few around a percentile.
    zero = samples(decode=[15 * MS, 15 * MS, 495 * MS], infer=[5 * MS] * 3)
    loads = {ZERO: zero, LOADED: samples(queue=[30 * MS] * requests, infer=[10 * MS] * requests)}
    monkeypatch.setattr(parts, "_loads", lambda lab, pictures, way, number: (loads, {"opencv": "the same"}))

    found = PARTS["latency-medium"].measure(lab(), 1)
    assert found.figures == {"latency_ns": [20e6], "tax": [0.75], "waiting": [waiting]}
    assert found.parity == {"opencv": "the same"}
    assert PARTS["latency-large-gpu"].measure(lab(), 1).figures["latency_ns"] == [20e6]


@pytest.mark.parametrize(
    ("size", "way", "asked"),
    [
        ("medium", "cpu", ["batch 1", FULL, ZERO, LOADED]),
        ("large", "cpu", ["batch 1", ZERO]),
        ("medium", "gpu", ["batch 1", ZERO]),
    ],
)
def test_only_those_loads_are_asked_that_a_claim_is_of(
    size: str, way: str, asked: list[str], lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = lab(backend="simulated", preprocess="simulated", time_s=1.0)
    seen: list[Drive] = []

    def drive(made: Any, drives: list[Drive], *_: object, **__: object) -> None:
        seen.extend(drives)
        raise RunError("seen")

    monkeypatch.setattr(parts, "drive", drive)
    with pytest.raises(RunError, match="seen"):
        parts._loads(here, size, way, 1)
    whole = drives(settled(here.config(size), "Server").config, 1)
    assert [name for name, each in whole.items() if each.load in [one.load for one in seen]] == asked
    loaded = [each.relative for each in seen if each.load == whole[LOADED].load]
    assert loaded == ([Relative(1, 120, 60.0)] if LOADED in asked else [])
    [few] = [each.relative for each in seen if each.load == whole[ZERO].load]
    assert few == Relative(0, 24 if size == "medium" else 8, 60.0)  # of the batch-1 rate, the first that is asked


POINTS = [closed(n, rate) for n, rate in ((1, 100.0), (4, 400.0), (16, 500.0), (4096, 300.0))]
AGAIN = [closed(n, rate + at, at) for at in (2, 3, 4, 5) for n, rate in ((16, 500.0), (4096, 300.0))]


@pytest.mark.parametrize(
    ("points", "decline"),
    [(POINTS + AGAIN, "holds"), (POINTS, "cannot be told"), (POINTS[:3], "cannot be told")],
)
def test_a_sweeps_points_tell_a_decline(
    points: list[Any], decline: str, lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome = closed_findings(points, None, None)
    monkeypatch.setattr(
        parts, "run_sweep", lambda configs, asked, console: SweepResult(tmp_path, points, {"outcome": outcome})
    )
    found = PARTS["concurrency"].measure(lab(), 1)

    assert verdicts({"concurrency": found}, "decline", rounds=1) == [decline]


def test_a_sweep_without_a_point_that_counts_has_failed(
    lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parts, "run_sweep", lambda *_: SweepResult(tmp_path, [], {"outcome": {}}))
    with pytest.raises(RunError, match="no point of the closed loop counts"):
        PARTS["concurrency"].measure(lab(), 1)


def planted_models(asked: list[Any], reasons: dict[Any, str], codes: list[ExitCode]) -> Callable[..., Measured]:
    def run(base: RunConfig, models: tuple[str, ...], names: list[str], *_: object) -> Measured:
        asked.append((base, models, names))
        shares = {"mobilenet-v2": (33, 100.0), "vit-b": (900, 10.0)}
        cells = {
            (model, name): result(infer, rate=rate * (2 + rate / 100 if name == "cuda" else 1))
            for model, (infer, rate) in shares.items()
            for name in names
            if (model, name) not in reasons
        }
        return Measured(rounds=[cells], reasons=reasons, codes=codes)

    return run


def test_models_are_run_in_one_scenario_preprocessed_here_or_there(
    lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(parts, "run_models", planted_models(asked, {}, [ExitCode.OK]))
    found = {part: PARTS[part].measure(lab(gpu=True, preprocess="fused"), 1) for part in ("models", "models-gpu")}

    for (base, models, names), preprocess in zip(asked, ("fused", "cuda"), strict=True):
        assert (base.scenario, base.boundary, base.overwrite) == ("Offline", "jpeg", True)
        assert (models, names) == (("mobilenet-v2", "vit-b"), [preprocess])
    assert verdicts(found, "models", "models-gpu") == ["holds", "holds"]


@pytest.mark.parametrize(
    ("codes", "error"),
    [
        ([ExitCode.FAILED], RunError),
        ([ExitCode.OK], UntestableError),
        ([ExitCode.OK, ExitCode.INTERRUPTED], KeyboardInterrupt),
    ],
)
def test_models_that_do_not_run_say_why(
    codes: list[ExitCode], error: type[BaseException], lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "run_models", planted_models([], {("vit-b", "opencv"): "too large"}, codes))
    with pytest.raises(error, match=None if error is KeyboardInterrupt else "too large"):
        PARTS["models"].measure(lab(), 1)


def energy_of(joules: dict[str, float] | None, code: ExitCode = ExitCode.OK, **row: Any) -> Callable[..., Any]:
    def run(base: RunConfig, sets: list[Any], names: list[str], *_: object) -> tuple[dict[str, Any], ExitCode]:
        energy = joules and {kind: {"gross_joules_per_sample": value} for kind, value in joules.items()}
        known = {"reason": None, "failed": False, "energy": energy, "notes": [], "parity": None} | row
        return {"rows": [{"pictures": each.name, "preprocess": names[0]} | known for each in sets]}, code

    return run


SIMULATED = {"backend": "simulated", "preprocess": "simulated", "power_log": "meter.csv"}


def test_joules_are_those_of_each_meter_and_of_both_together(
    lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "run_energy", energy_of({"cpu": 2.0, "gpu": 3.0}))
    found = PARTS["energy"].measure(lab(**SIMULATED), 1)

    assert found.figures["medium, CPU and GPU"] == [5.0] == found.figures["large, CPU and GPU"]
    assert found.figures["large, GPU"] == [3.0] and "medium, external" not in found.figures
    monkeypatch.setattr(parts, "run_energy", energy_of({"external": 7.0}))
    assert PARTS["energy"].measure(lab(**SIMULATED), 1).figures == {
        "medium, external": [7.0],
        "large, external": [7.0],
    }


@pytest.mark.parametrize(
    ("told", "error", "why"),
    [
        (energy_of(None), UntestableError, "no counter of a CPU or GPU"),
        (energy_of(None, notes=["energy of the CPU is unknown: no"]), UntestableError, "the CPU is unknown"),
        (energy_of(None, reason="no GPU"), UntestableError, "no GPU"),
        (energy_of(None, reason="it broke", failed=True), RunError, "it broke"),
        (energy_of({"cpu": 1.0}, ExitCode.INTERRUPTED), KeyboardInterrupt, None),
    ],
)
def test_energy_that_is_not_measured_says_why(
    told: Callable[..., Any],
    error: type[BaseException],
    why: str | None,
    lab: Callable[..., Lab],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "run_energy", told)
    with pytest.raises(error, match=why):
        PARTS["energy"].measure(lab(**SIMULATED), 1)


def rung(name: str, rates: list[float], reason: str | None = None, failed: bool = False) -> dict[str, Any]:
    return {"name": name, "rounds": len(rates), "by_round": rates, "reason": reason, "failed": failed}


def test_a_ladder_has_all_rounds_of_the_rungs_that_run(
    lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [rung("plain", [1.0, 1.0, 1.0, 1.0]), rung("GPU decode", [], NO_GPU), rung("best", [4.0, 4.0, 4.0, 4.0])]
    monkeypatch.setattr(parts, "run_ladder", lambda *_: ({"rows": rows}, ExitCode.OK))
    found = PARTS["ladder"].measure(lab(), 1)

    assert [*found.figures] == ["plain", "best"]
    told = verdicts({"ladder": found}, "ladder", "rungs", "gpu-decode")
    assert told == ["holds", "holds", "cannot be tested here"]
    rows[2] = rung("best", [4.0], "it broke", failed=True)
    with pytest.raises(RunError, match="best: it broke"):
        PARTS["ladder"].measure(lab(), 1)
