"""``sut whatif``: what a faster stage would gain is what it gains when it is made faster, queueing included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sut.cli.console import BriefConsole
from sut.config import RunConfig
from sut.studies.whatif.bench import PERCENTILES, Bench
from sut.studies.whatif.worlds import World
from tests.children import run_python

STAGES = ("decode", "normalize", "infer")
FASTER = 30
SIMULATED = (
    *("--backend", "simulated", "--preprocess", "simulated", "--boundary", "jpeg", "--dataset", "demo"),
    *("--set", "preprocess_options.decode_ms=10", "--set", "backend_options.a_ms=5", "--output", "out"),
)


def planted(scenario: str, output: Path, cut: str | None = None) -> RunConfig:
    """A run whose stages take as long each, one of them really cut; in Server at a rate at which hardly any waits."""
    ms = {stage: 50 * (1 - FASTER / 100 * (stage == cut)) for stage in STAGES}
    counts = {"SingleStream": 16, "MultiStream": 16, "Server": 64}
    few = "".join(f"*.{name}.min_query_count = {count}\n" for name, count in counts.items())
    (output / "few.conf").write_text(few, encoding="utf-8")
    server = {"lanes": 16, "max_batchsize": 1, "max_latency_s": 2.0, "qps": 20.0} if scenario == "Server" else {}
    return RunConfig(
        backend="simulated",
        backend_options={"a_ms": ms["infer"], "b_ms": 0.0, "devices": 16},
        preprocess="simulated",
        preprocess_options={"decode_ms": ms["decode"], "resize_ms": 0.0, "normalize_ms": ms["normalize"]},
        boundary="jpeg",
        dataset="demo",
        scenario=scenario,
        samples_per_query=2,
        threads=1,
        time_s=6.0 if scenario == "Offline" else 1.0,
        user_conf=output / "few.conf",
        output=output,
        **({"lanes": 1, "max_batchsize": 2} | server),
    )


def figure(bench: Bench, world: World) -> float:
    """A world's figure: of latencies the median, which a stall of the machine leaves alone."""
    found = bench.figure(world)
    assert found is not None
    return found


@pytest.fixture(scope="module", params=["SingleStream", "MultiStream", "Server", "Offline"])
def as_it_is(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, float]]:
    """A scenario with the planted times, and its figure."""
    output = tmp_path_factory.mktemp(request.param)
    bench = Bench(planted(request.param, output), output, BriefConsole())
    with pytest.MonkeyPatch.context() as patch:
        for scenario in PERCENTILES:
            patch.setitem(PERCENTILES, scenario, "p50")
        bench.look()
        yield bench, figure(bench, World())


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_gain_is_what_a_real_cut_gains(as_it_is: tuple[Bench, float], stage: str, tmp_path: Path) -> None:
    bench, before = as_it_is
    scenario, world = bench.base.scenario, World.of(stage, FASTER)

    predicted = figure(bench, world) / before
    cut = Bench(planted(scenario, tmp_path, cut=stage), tmp_path, BriefConsole())
    cut.look()
    real = figure(cut, World()) / before

    print(f"{scenario}, {stage}: predicted {predicted:.3f}, real {real:.3f}")
    assert predicted == pytest.approx(real, rel=0.05)


def test_a_question_leaves_a_table_a_file_and_a_page(tmp_path: Path) -> None:
    words = ("--scenario", "Offline", "--stage", "decode", "--faster", "50", "--time", "0.3", "--rounds", "1")
    child = run_python("-m", "sut", "whatif", *SIMULATED, *words, cwd=tmp_path, COLUMNS="80")

    assert child.code == 0, child.err
    [folder] = tmp_path.glob("out/*/whatif-*")
    told = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    [row] = told["rows"]
    assert (told["schema"], told["command"], row["stage"], row["faster_percent"]) == (1, "whatif", "decode", 50)
    assert {*row["slowdown"]} == {"resize", "normalize", "infer", "postprocess"} and {*row["slowdown"].values()} == {2}
    assert row["change_percent"]["value"] > 0 and row["gain"]["pairs"] == 1
    assert max(map(len, child.out.splitlines()[:-2])) <= 80
    assert "decode 50 % faster: Offline rate +" in child.out.replace("\n", " ")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "What a faster stage would gain" in page and "by Amdahl" in page

    results = {json.dumps(each["config"]["slowdown"]): each for each in map(_read, folder.rglob("result.json"))}
    slow = results[json.dumps(row["slowdown"])]
    assert not slow["rules_compliant"] and any("stretches stages on purpose" in rule for rule in slow["rules_broken"])
    assert any("stretched on purpose" in note for note in slow["notes"])
    assert results["{}"]["scenario"] == "Offline"


def _read(path: Path) -> dict[str, object]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--stage", "decod"), "unknown stage 'decod'; did you mean decode"),
        (("--stage", "complete"), "the stage complete cannot be stretched"),
    ],
)
def test_a_stage_that_cannot_be_stretched_is_one_line(tmp_path: Path, words: tuple[str, ...], error: str) -> None:
    child = run_python("-m", "sut", "whatif", *SIMULATED, *words, cwd=tmp_path)

    assert child.code == 1
    assert error in child.error
    assert not (tmp_path / "out").exists()
