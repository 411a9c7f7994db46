"""What a submission says in words: the README.md files and calibration.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sut.config import HOW_KEPT, RunConfig, make_config
from sut.config.option import kinds_of
from sut.datasets.base import IMAGENET_PICTURES
from sut.datasets.coco import SAFE_LIST
from sut.datasets.demo import DEMO
from sut.mlperf import official
from sut.mlperf.accuracy import score_line
from sut.mlperf.tree.judge import REHEARSAL
from sut.models.identity import KNOWN
from sut.models.registry import MODELS
from sut.results.schema import Result, used
from sut.studies.submission.about import About
from sut.studies.submission.runs import Entry, benchmark_of
from sut.studies.submission.settings import calibrated_on, weights_file
from sut.version import NAME

_ELSEWHERE = {*HOW_KEPT, "scenario", "user_conf", "audit_conf", "dataset_path", "cache", "cache_dir"}
"""Settings that the commands give, or that change nothing that is measured."""
_DATA = {
    "imagenet": f"ImageNet's validation set ({IMAGENET_PICTURES} pictures) in the order of val_map.txt, which "
    "`./run_local.sh dataset imagenet $DATA_DIR` writes",
    "coco": "COCO's val2017 as far as its annotations name pictures, in their order; MLPerf's are those of "
    f"{SAFE_LIST}, which `./run_local.sh dataset coco $DATA_DIR` writes",
}
"""Data sets of MLPerf's, and what their order is, in words."""
_ALWAYS = ("backend", "model", "device", "precision", "preprocess", "boundary")
_ONE_AT_A_TIME = ("lanes", "max_batchsize")
"""Have no effect in SingleStream."""


def scenario_readme(entry: Entry, about: About, model: str, relaxed: Sequence[str] | None) -> str:
    """README.md of a scenario: what was measured, and how to measure it again."""
    result = entry.runs["performance"].result
    source = entry.inferred_from or entry.scenario
    title = f"# {about.system}: {model}, {entry.scenario}\n"
    if entry.inferred_from is not None:
        title += f"\n{entry.scenario} is inferred from {source}: the logs here are those of the {source} runs.\n"
    return f"""{_opening(relaxed)}{title}
{_what(result)}. {_figures(entry)}

## To run it again

From a checkout of {NAME} {result.versions.get(NAME)}, with the user.conf that lies here and these settings in
`settings.yaml`:

```yaml
{settings_yaml(result, source)}```

```
{_commands(result, about, source, " --user-conf user.conf")}
```

src/{model}/README.md says where model and data come from.
"""


def source_section(result: Result, scenarios: Sequence[str], about: About, model: str) -> str:
    """What src/MODEL/README.md says of one system: code, model, data, calibration, commands."""
    return f"""{_what(result)}.

- Code: {NAME} {result.versions.get(NAME)}, the commit behind the `g`; Python {result.versions.get("python")}, LoadGen
  {result.versions.get("mlcommons-loadgen")}.
- Model: {_model(result)}
- Data: {_data(result)}
- Calibration: {calibration_section(result)}

```yaml
{settings_yaml(result)}```

```
{_commands(result, about, ",".join(scenarios))}
```

Each scenario's own README.md and user.conf have what was chosen and measured for it.
"""


def calibration_section(result: Result) -> str:
    """How the model that ran came to its precision, in a sentence or two."""
    if result.precision != "int8":
        how = "" if result.precision == "fp32" else f"; weights were cast from FP32 to {result.precision.upper()}"
        return f"Nothing was quantised, and nothing calibrated: the model ran in {result.precision.upper()}{how}."
    source = calibrated_on(result)
    if source is None:
        return "The model's file came quantised to INT8; nothing was calibrated here."
    folder = {"imagenet": "one of MLCommons' two (calibration/ImageNet)", "coco": "MLCommons' (calibration/COCO)"}
    checked = f" The list was checked to be {folder.get(benchmark_of(result).dataset, 'MLCommons')}."
    official_list = checked if result.config.get("rules") == "closed" else ""
    return (
        f"Weights and activations were quantised to INT8 after training, by NNCF {result.versions.get('nncf') or ''} "
        f"(preset PERFORMANCE), on {source}.{official_list} No weights were trained."
    )


def document(
    existing: str | None, title: str, about: About, model: str, section: str, rules: Sequence[str] | None
) -> str:
    """A text that systems share: ``section`` is about this one, behind what there is already about others."""
    relaxed = [] if rules is None else [_relaxed(rules)]
    mark = "" if rules is None else f"{REHEARSAL}\n\n"
    before = existing or f"{mark}# {title}\n"
    return "\n".join([before, f"## {about.system}, {model}\n", *relaxed, f"{section.rstrip()}\n"])


def settings_yaml(result: Result, scenario: str | None = None) -> str:
    """The settings of a run as a file for ``--config``: what ran, and what else is not usual; of files the names alone.

    With a ``scenario`` also what was chosen for it.
    """
    usual = make_config({}).model_dump(mode="json")
    settings = {
        name: _without_folders(name, value)
        for name, value in result.config.items()
        if name in usual and name not in _ELSEWHERE and (name in _ALWAYS or value != usual[name])
    }
    if scenario is not None:
        settings |= used(result)
    alone = _ONE_AT_A_TIME if scenario == "SingleStream" else ()
    text: str = yaml.safe_dump({name: value for name, value in settings.items() if name not in alone})
    return text


def _without_folders(name: str, value: Any) -> Any:
    """A setting as others can use it: no folder of this machine."""
    if isinstance(value, Mapping):
        return {key: _without_folders(name, each) for key, each in value.items()}
    if isinstance(value, str) and (Path in kinds_of(RunConfig)[name] or "/" in value):
        return Path(value).name
    return value


def _opening(relaxed: Sequence[str] | None) -> str:
    return "" if relaxed is None else f"{REHEARSAL}\n\n{_relaxed(relaxed)}\n"


def _relaxed(rules: Sequence[str]) -> str:
    return "\n".join(["Rules of MLPerf's that it relaxes:\n", *(f"- {rule}" for rule in rules or ["none"]), ""])


def _what(result: Result) -> str:
    return (
        f"{result.model} in {result.precision} on {result.backend} {result.backend_version or ''}, device "
        f"{result.device}; pictures prepared by {result.preprocess}, the clock starts at the boundary {result.boundary}"
    )


def _figures(entry: Entry) -> str:
    performance, scored = (entry.runs[role].result for role in ("performance", "accuracy"))
    found = []
    if (metric := performance.metric) is not None and metric.value is not None:
        value, name = metric.value, metric.name
        figure = f"{value / 1e6:.6g} ms" if name.endswith("_ns") else f"{value:.6g}"
        found.append(f"{name.removesuffix('_ns')}: {figure}")
    if (accuracy := scored.accuracy) is not None:
        found.append(score_line(accuracy.name, accuracy.value, accuracy.count))
    return "; ".join(found) + ("." if found else "")


def _commands(result: Result, about: About, scenarios: str, more: str = "") -> str:
    data = "" if result.config.get("dataset_path") is None else " --dataset-path $DATA_DIR"
    run = f"./run_local.sh run --config settings.yaml{data}{more} --scenario {scenarios}"
    audit = ["./run_local.sh audit FOLDER  # the one that these runs name"] if about.is_closed else []
    return "\n".join([run, f"{run} --accuracy", *audit])


def _model(result: Result) -> str:
    file = weights_file(result)
    if result.weights in ("random", "planted"):
        source = f"with {result.weights} weights, made by this project when it is first used"
    elif result.model == official.MODEL and result.weights == "trained":
        sums = " or ".join(sum_ for sum_, name in KNOWN.items() if name == official.MODEL)
        source = f"MLCommons' reference model for image classification (its MD5: {sums}), brought in $MODEL_DIR"
    elif benchmark_of(result).exports_differ and result.model == benchmark_of(result).name:
        source = (
            "the submitter's own export, as MLPerf has it of this model: the accuracy runs here are of the same file"
        )
    elif result.model in MODELS and result.weights == "trained" and "trained" in MODELS[result.model].makes:
        source = "made by this project from published weights when it is first used"
    else:
        source = "brought by the submitter, who tells where to get it"
    sha256 = result.model_sha256 or result.attested.get("details", {}).get("server_sha256")
    return f"{file}, {source}; SHA-256 {sha256}."


def _data(result: Result) -> str:
    name = result.config.get("dataset")
    count = result.config.get("count")
    if name == DEMO or (name is None and result.config.get("dataset_path") is None):
        return "the photos that come with this project; no data set of MLPerf's."
    first = f"the first {count} pictures of" if count else "all of"
    what = _DATA.get(name or benchmark_of(result).dataset, f"{name} in the order of its list")
    return f"{first} {what}."
