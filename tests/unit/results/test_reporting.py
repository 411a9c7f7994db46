"""What a page says of results: shares, gains, the deciding sentence, warnings, labels; whatever the results hold."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.extras import entries, names
from plugins.nvml import GpuState
from sut.pipeline.lane import lane_stages
from sut.results.collected import Found
from sut.results.gpus import GpuUse
from sut.results.page import words
from sut.results.page.charts import batch_histogram, latency_curve
from sut.results.page.page import MOST_DETAILS, make_page
from sut.results.page.runs import Run, runs_of
from sut.results.page.shares import gains, splits
from sut.results.page.stage_bars import stage_bar
from sut.results.quiet import Quiet
from sut.results.schema import Result
from sut.studies.comparing.page import read_comparison
from tests.unit.report_results import STAGES, a_comparison, a_result

RANDOM = {"weights": "random"}


def test_every_stage_has_words_and_a_colour() -> None:
    ours = {stage for name in names("preprocess") for stage in stages_of(name)}
    style = (Path(words.__file__).with_name("page.css")).read_text()

    for stage in {*ours, "carry", "gather", *lane_stages(transfers=True)}:
        assert stage in words.STAGES and f".st-{stage}" in style


def stages_of(name: str) -> tuple[str, ...]:
    module, _, kind = entries("preprocess")[name].target.partition(":")
    found: tuple[str, ...] = getattr(importlib.import_module(module), kind).stages
    return found


def found(*results: Result) -> list[Found]:
    return [Found(Path(f"{number}/result.json"), each) for number, each in enumerate(results)]


def text_of(said: words.Said) -> str:
    return "".join(each if isinstance(each, str) else each.text for each in said)


def the_run(**changes: Any) -> Run:
    return runs_of(found(a_result(**changes)))[0]


def test_the_model_s_share_is_that_of_the_samples_around_p50_and_from_p99_up() -> None:
    stages = {
        "queue": {"mean": 9, "p50": 9, "p99": 9, "middle": 30, "tail": 800},
        "infer": {"mean": 9, "p50": 9, "p99": 9, "middle": 70, "tail": 200},
    }

    said = text_of(words.amdahl(the_run(stages_ns=stages, boundary="jpeg", cost_ns={"decode": 4, "infer": 1})))

    assert said == (
        "The model itself is 70 % of p50 and 20 % of p99; "
        "if it were free: +25 % throughput; if preprocessing were free: +400 %."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scenario": "Offline", "boundary": "pixels", "cost_ns": {"resize": 0, "infer": 3, "postprocess": 1}},
         "The model itself is 75 % of the work on a picture; if it were free: +300 % throughput; "
         "if preprocessing were free: +0 %."),
        ({"scenario": "Offline", "boundary": "pixels", "cost_ns": {"resize": 0, "infer": 3}},
         "The model itself is 100 % of the work on a picture; if it were free: unbounded throughput; "
         "if preprocessing were free: +0 %."),
        ({"stages_ns": {"queue": {"mean": 1}, "infer": {"mean": 3}}, "boundary": "jpeg", "cost_ns": {}},
         "The model itself is 75 % of the mean latency."),
        ({"stages_ns": {}}, ""),
    ],
)  # fmt: skip
def test_where_less_is_known_less_is_said(changes: dict[str, Any], said: str) -> None:
    assert text_of(words.amdahl(the_run(**changes))) == said


def test_outside_the_clock_nothing_is_said_of_a_gain() -> None:
    run = the_run(boundary="tensor")

    assert gains(run) is None
    assert "outside this clock (boundary tensor)" in text_of(words.amdahl(run))


def test_lanes_as_really_used_decide_a_staged_gain() -> None:
    staged = {"boundary": "jpeg", "scenario": "Offline", "cost_ns": {"decode": 4, "gather": 1, "infer": 6}}
    asked = {"lanes": None, "preprocess_workers": 4}

    used = gains(the_run(**staged, config=asked, plan={"lanes": 2}))

    assert used is not None and used.gain_without_inference == 2.5  # (1 + 6) / 2 lanes against 4 / 4 workers


def test_a_split_is_all_stages_in_order_or_none() -> None:
    known = splits(a_result())
    broken = splits(a_result(stages_ns={"queue": {"middle": 1, "tail": 1}, "infer": {"tail": 1}}))

    assert [each.of for each in known] == ["middle", "tail"]
    assert list(known[0].parts) == list(STAGES)
    assert known[0].total_ns == sum(STAGES.values())
    assert [each.of for each in broken] == []


def test_one_configuration_says_what_it_does() -> None:
    results = [a_result(scenario=name, **RANDOM) for name in ("Server", "Offline", "SingleStream")]
    scored = a_result(mode="accuracy", scenario="Offline", valid=None, metric=None, **RANDOM,
                      accuracy={"name": "top1", "value": 0.5, "count": 8})  # fmt: skip

    said = text_of(words.deciding(runs_of(found(*results, scored))))

    assert said == (
        "efficientnet-lite0, random weights on onnxruntime (cpu, fp32) answers one picture in 5 ms (half of them; "
        "99 in 100 within 7.9 ms), 180.5 pictures a second when all are there at once, and labels 50 % of 8 pictures "
        "right."
    )


def test_the_rate_that_is_told_is_the_one_that_mlperf_compares_by() -> None:
    metric = {"name": "samples_per_second", "value": 170.25, "higher_is_better": True}

    said = text_of(words.deciding([the_run(scenario="Offline", samples_per_second=176.75, metric=metric)]))

    assert "answers 170.2 pictures a second" in said


def test_where_no_model_ran_the_page_says_so() -> None:
    runs = runs_of(found(a_result(), a_result(backend="null", weights=None)))

    [said] = [each for each in words.warnings(runs) if each.startswith("No model")]
    assert said == "No model: 1 of 2 runs; null executes none, so its figures are no model's"


def test_of_several_runs_the_latest_is_told_not_the_best() -> None:
    rates = {"2026-11-28": 250.0, "2026-11-30": 100.0, "2026-11-29": 400.0}
    results = [a_result(rate=rate, scenario="Offline", started=f"{day}T08:00:00+00:00") for day, rate in rates.items()]
    runs = runs_of(found(*results))

    lead = words.lead_of(runs)

    assert "answers 100 pictures a second" in text_of(words.deciding(runs))
    assert lead is not None and lead.result.samples_per_second == 100.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"invalid_reasons": ["too few queries"]}, "has no figure that counts: too few queries"),
        ({"first_error": "photo.jpg: broken", "failed_samples": 3}, "failed: photo.jpg: broken"),
    ],
)
def test_what_does_not_count_is_no_figure(changes: dict[str, Any], said: str) -> None:
    assert text_of(words.deciding([the_run(valid=False, **changes)])).endswith(said)


def test_of_several_configurations_the_best_is_ahead_and_nothing_is_decided() -> None:
    rates = {"slow": 100.0, "fast": 250.0, "broken": 900.0}
    results = [
        a_result(rate=rate, backend=name, scenario="Offline", valid=name != "broken") for name, rate in rates.items()
    ]

    said = text_of(words.deciding(runs_of(found(*results))))

    assert said.startswith("In Offline, fast is ahead: 2.5 times as good as the next, slow. These are single runs")


@pytest.mark.parametrize(
    "other",
    [
        {"model": "resnet50"},
        {"boundary": "jpeg"},
        {"system": {"cpu": "AMD EPYC", "cores": 64}},
        {"config": {"dataset": "folder", "dataset_path": "/photos"}},
    ],
)
def test_of_other_work_or_another_machine_none_is_ahead(other: dict[str, Any]) -> None:
    first = a_result(rate=100.0, scenario="Offline")
    second = a_result(rate=250.0, scenario="Offline", backend="openvino", **other)

    said = text_of(words.deciding(runs_of(found(first, second))))

    assert said == "2 configurations, of which no two have figures of the same work that count: nothing to compare."


def test_a_latency_is_better_lower() -> None:
    results = [a_result(backend=name) for name in ("slow", "fast")]
    results[1] = a_result(backend="fast", metric={**results[1].model_dump()["metric"], "value": 1.0e6})

    assert "fast is ahead: 5.3 times" in text_of(words.deciding(runs_of(found(*results))))


def test_of_two_that_are_alike_nobody_is_ahead() -> None:
    results = [a_result(rate=rate, backend=name, scenario="Offline") for name, rate in (("one", 100.0), ("two", 100.5))]

    said = text_of(words.deciding(runs_of(found(*results))))

    assert said.startswith("In Offline, two and one are within 1 % of each other")


def test_labels_are_what_differs_and_never_the_same() -> None:
    results = [a_result(precision="int8"), a_result(), a_result(started="2026-11-29T00:00:00+00:00")]

    labels = [run.label for run in runs_of(found(*results))]

    assert labels == ["int8", "fp32 · 2026-11-28T08:40:13+00:00", "fp32 · 2026-11-29T00:00:00+00:00"]


def test_scenarios_durations_and_what_was_chosen_are_one_configuration() -> None:
    timed = [a_result(scenario=name, config={"time_s": 3.0, "lanes": None}, plan={"lanes": lanes})
             for name, lanes in (("SingleStream", 1), ("Offline", 2))]  # fmt: skip
    scored = a_result(mode="accuracy", scenario="Offline", valid=None, config={"time_s": None, "lanes": None})

    runs = runs_of(found(*timed, scored))

    assert {run.setup for run in runs} == {"onnxruntime · cpu · fp32"}
    other = a_result(config={"time_s": 3.0, "lanes": 2})
    assert [run.setup for run in runs_of(found(timed[0], other))] == ["nothing set", "lanes 2"]


def test_warnings_name_what_makes_a_figure_doubtful() -> None:
    results = [
        a_result(duration_s=600.0, model_sha256="cd" * 32),
        a_result(weights="random", backend="other", system={"cpu": "Another", "cores": 64}),
        a_result(backend="third", valid=False, invalid_reasons=["p99 over the bound"]),
    ]

    said = "\n".join(words.warnings(runs_of(found(*results))))

    assert "INVALID: SingleStream, file abababab · trained weights · third: p99 over the bound" in said
    assert "Short: 2 of 3 runs" in said
    assert "Random weights: 1 of 3 runs" in said
    assert "More than one machine (CPU: AMD EPYC and Another; usable cores: 2 and 64)" in said
    assert "More than one version of model efficientnet-lite0" in said
    assert words.warnings([the_run(duration_s=600.0)]) == ["How busy the machine was is not recorded: the run"]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (0.02, []),
        (0.3, ["Busy machine: the run; SingleStream: " + Quiet(0.3, 0.0, 0.0).line()]),
        (None, ["How busy the machine was is not recorded: the run"]),
    ],
)
def test_a_busy_machine_is_told(others: float | None, said: list[str]) -> None:
    quiet = {"others_share": others, "own_wait_share": 0.0, "steal_share": 0.0}

    assert words.warnings([the_run(duration_s=600.0, quiet=quiet)]) == said


def test_a_gpu_that_others_held_or_that_was_throttled_is_told() -> None:
    before = GpuState(2**30, None, None, None, None, None)
    gpu = GpuUse("cuda:0", "a", "Fake", None, 1980, None, before, 9, slowed={"sw_power_cap": 4})

    assert gpu.warnings()[1] == "cuda:0 was throttled: sw_power_cap at 4 of 9 looks"
    [said] = [each for each in words.warnings([the_run(gpus=[gpu])]) if "GPU" in each]
    assert said == "A GPU that was not free: the run; SingleStream: " + gpu.warnings()[0]


def test_charts_draw_what_they_are_given() -> None:
    bar = stage_bar("k", "Where", {"queue": 1.0, "infer": 3.0, "<own>": 4.0, "residual": -0.5})
    curve = latency_curve("k", "How long", [("min", 1.0, 0.0), ("p50", 2.0, 0.5), ("max", 4.0, 1.0)])
    bars = batch_histogram("k", "Batches", {2: 5.0, 10: 1.0})

    assert bar.count("<path") == 3 and 'class="st-infer" d="M125.00 0h375.00' in bar
    assert 'class="st-other" d="M500.00 0h500.00' in bar and "&lt;own&gt;: 50.0 %" in bar
    assert 'd="M116.5 170.0 L193.0 91.0 L346.0 12.0"' in curve  # x from 0
    assert "2: 5, 10: 1</desc>" in bars
    for svg in (bar, curve, bars):
        assert 'role="img" aria-labelledby="k-t k-d"' in svg


def test_many_sizes_share_bars() -> None:
    svg = batch_histogram("k", "Batches", {size: 1.0 for size in range(1, 1001)})

    assert '<desc id="k-d">Batches by their number of pictures. 1-16: 16, 17-32: 16,' in svg


ANY = st.one_of(st.integers(-(10**400), 10**400), st.integers(-5, 5 * 10**9))
NAMES = st.sampled_from(
    ["min", "p50", "p99", "max", "mean", "middle", "tail", "infer", "queue", "a/b", "<b>", "8", "1"]
)


@settings(max_examples=60)
@given(
    latency=st.dictionaries(NAMES, st.none() | ANY),
    stages=st.dictionaries(NAMES, st.dictionaries(NAMES, ANY)),
    cost=st.dictionaries(NAMES, ANY),
    batches=st.dictionaries(NAMES, ANY),
    words_=st.dictionaries(st.sampled_from(["lanes", "cpu", "cores", "dataset", "name", "provider"]), st.text() | ANY),
    value=st.none() | st.floats(),
    scenario=st.sampled_from(["SingleStream", "Offline", "no scenario"]),
)
def test_whatever_a_file_says_there_is_a_page(
    latency: Any, stages: Any, cost: Any, batches: Any, words_: Any, value: Any, scenario: str
) -> None:
    odd = a_result().model_copy(
        update={
            "latency_ns": latency, "stages_ns": stages, "cost_ns": cost, "batch_sizes": batches, "config": words_,
            "plan": words_, "system": words_, "recipe": words_, "attested": words_, "scenario": scenario,
            "boundary": "jpeg", "metric": a_result().metric.model_copy(update={"value": value}),
        }
    )  # fmt: skip

    assert "</html>" in make_page(found(odd, a_result()))


def test_a_thousand_results_are_a_page_of_a_few_megabytes() -> None:
    results = [a_result(rate=100.0 + i, config={"lanes": i}) for i in range(1000)]

    page = make_page(found(*results))

    assert len(page) < 10e6
    assert f"Charts of {MOST_DETAILS} of the 1000 results" in page
    assert page.count("<article>") == MOST_DETAILS
    assert page.count('data-label="p50 ms"') == 1000


def test_the_bar_at_the_top_is_that_of_the_best_of_a_comparison(tmp_path: Path) -> None:
    rates = {"faster": 900.0, "chosen": 100.0}
    faster, chosen = found(*(a_result(rate, backend=name, scenario="Offline") for name, rate in rates.items()))
    told = a_comparison()
    told["rows"][1] |= {"result": "1/result.json"}
    (tmp_path / "compare.json").write_text(json.dumps(told))
    here = [Found(tmp_path / each.path, each.result) for each in (faster, chosen)]

    page = make_page(here, [read_comparison(tmp_path / "compare.json", 0)])

    bar = page[page.index("Where a picture") :]
    assert "chosen" in bar[: bar.index("<svg")] and "faster" not in bar[: bar.index("<svg")]


def test_a_page_of_one_result_is_small_and_asks_for_nothing() -> None:
    page = make_page(found(a_result()))

    assert len(page) < 1e6
    assert "http" not in page.replace("http-equiv", "")


def test_a_comparison_s_cells_say_what_they_are_held_against_and_what_to_doubt(tmp_path: Path) -> None:
    told = a_comparison()
    for row, boundary in zip(told["rows"], ("tensor", "jpeg"), strict=False):
        row |= {"cell": f"a at {boundary}", "against": f"a at {boundary}", "boundary": boundary, "ratio": None}
    told["rows"][0] |= {"verdict": "not chosen", "barred": "41.0 % same labels as fp32, less than 95 %"}
    told["rows"][1]["invalid_reason"] = "raise --qps"
    told["sentence"] = "tensor: nothing can be recommended. jpeg: a is the only cell"
    path = tmp_path / "compare.json"
    path.write_text(json.dumps(told))

    table = read_comparison(path, 0).table

    assert table.caption.startswith("Against a at tensor; of other work a at jpeg: ")
    assert [cell.small[0] for cell in table.first.cells] == [
        "41.0 % same labels as fp32, less than 95 %",
        "not VALID: raise --qps",
        "nvidia-dali is not installed",
    ]


def test_a_query_s_p50_is_not_a_picture_s() -> None:
    run = the_run(scenario="MultiStream", boundary="jpeg")

    assert text_of(words.amdahl(run)).startswith("The model itself is 49.2 % of p50 and 49.2 % of p99 of a picture; ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema": 1, "comm', "cannot be read"),
        ("[]", "not what sut compare writes"),
        ({"schema": 2}, "it has schema 2, expected 1"),
        ({"rows": {}}, "no sentence or no rows"),
        ({"sentence": 3}, "no sentence or no rows"),
        (
            {"sentence": "use openvino int8: 313 x (281 to 344) against onnxruntime fp32"},
            "edited, or not written by sut",
        ),
    ],
)
def test_what_is_no_comparison_is_named(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "compare.json"
    path.write_text(content if isinstance(content, str) else json.dumps(a_comparison() | content))

    with pytest.raises(ValueError, match=reason):
        read_comparison(path, 0)
