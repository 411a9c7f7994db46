"""user.conf and measurements.json: what LoadGen was given, and what became of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from sut.config import MODEL_FILES, is_model_file
from sut.mlperf import official
from sut.mlperf.logs import DETAIL, Detail
from sut.models.sources.resnet import TRAINED_FILE
from sut.results.schema import Result

_DTYPES = {"float32": "fp32", "float16": "fp16"}
_TO_ALL = MappingProxyType(
    {
        "min_duration_ms": ("min_duration", 1.0),
        "max_duration_ms": ("max_duration", 1.0),
        **{
            name: (name, 1.0)
            for name in (
                *("min_query_count", "max_query_count", "performance_sample_count_override"),
                *("performance_issue_unique", "performance_issue_same", "performance_issue_same_index"),
            )
        },
    }
)
_TO_SCENARIO: Mapping[str, Mapping[str, tuple[str, float]]] = MappingProxyType(
    {
        "SingleStream": {
            "single_stream_expected_latency_ns": ("target_latency", 1e6),
            "single_stream_target_latency_percentile": ("target_latency_percentile", 0.01),
        },
        "MultiStream": {
            "multi_stream_expected_latency_ns": ("target_latency", 1e6),
            "multi_stream_target_latency_percentile": ("target_latency_percentile", 0.01),
            "multi_stream_samples_per_query": ("samples_per_query", 1.0),
        },
        "Server": {
            "server_target_qps": ("target_qps", 1.0),
            "server_target_latency_ns": ("target_latency", 1e6),
            "server_target_latency_percentile": ("target_latency_percentile", 0.01),
            "server_coalesce_queries": ("coalesce_queries", 1.0),
            "server_max_async_queries": ("max_async_queries", 1.0),
        },
        "Offline": {"offline_expected_qps": ("target_qps", 1.0)},
    }
)
"""What the detail log says was requested, without that word, by scenario: LoadGen's key for it in a file, and how
many of it are one of that key's unit."""
_NEEDED = ("min_duration", "target_latency", "target_qps")
"""Settings without which a run is another one, where its scenario has them."""
_MOST = 1e18
"""Of any of these numbers: LoadGen's nanoseconds have 64 bits."""


def user_conf(scenario: str, detail: Detail, folder: Path, model: str = official.MODEL) -> str:
    """The settings that LoadGen was given in the performance run of ``folder``, as a user.conf that repeats it.

    They are those of ``model``, as mlperf.conf calls it, whatever its own name is: LoadGen has no rules for others, and
    would not apply them. The log has six digits. Raises ``ValueError`` where the log does not say them.
    """
    lines = [f"# What LoadGen was given in the {scenario} run."]
    for name, (key, unit) in {**_TO_ALL, **_TO_SCENARIO[scenario]}.items():
        value = detail.values.get(f"requested_{name}", 0)
        if not (isinstance(value, (int, float)) and 0 <= value < _MOST) or (key in _NEEDED and not value):
            raise ValueError(f"{folder / DETAIL}: requested_{name} is {value}, expected what LoadGen was given")
        if not value:
            continue  # as LoadGen has it anyway
        given = value / unit
        if (scenario, key) == ("Server", "target_latency") and not given.is_integer():
            lines.append(f"# The bound was {given:.10g} ms; from a file LoadGen takes whole ones.")
            given = math.ceil(given)
        # Of a whole number in another form LoadGen reads the first digit.
        number = f"{given:.0f}" if given == round(given) else f"{given:.10g}"
        lines.append(f"{model}.{scenario}.{key} = {number}")
    return "\n".join(lines) + "\n"


def measurements(result: Result) -> dict[str, str]:
    """measurements.json: the input's type, and the weights from the file to what executed."""
    dtype = str(result.recipe.get("dtype", "float32"))
    return {
        "input_data_types": _DTYPES.get(dtype, dtype),
        "retraining": "not known" if result.weights == "unknown" else "no",
        "starting_weights_filename": weights_file(result),
        "weight_data_types": result.precision,
        "weight_transformations": "; ".join(_transformations(result)) or "none",
    }


def weights_file(result: Result) -> str:
    """The name of the file that the weights came in."""
    model = str(result.config.get("model") or result.model)
    is_own = is_model_file(model)
    if model.lower().endswith(MODEL_FILES):
        return Path(model).name
    if not is_own and result.model == official.MODEL and result.weights == "trained":
        return TRAINED_FILE
    whole = (name for name, sha256 in result.loaded_sha256.items() if sha256 == result.model_sha256)
    return next((Path(name).name for name in whole), Path(model).name if is_own else f"{result.model}.onnx")


def calibrated_on(result: Result) -> str | None:
    """What calibrated an INT8 model that was quantised here, in words; None where nothing did."""
    told = (note.removeprefix("calibrated on ") for note in result.notes if note.startswith("calibrated on "))
    return next(told, None) if result.precision == "int8" else None


def _transformations(result: Result) -> list[str]:
    found = ["normalisation and layout folded into the graph"] if result.config.get("fold") else []
    if result.precision in ("fp16", "bf16"):
        found.append(f"cast from fp32 to {result.precision}")
    elif result.precision == "int8" and (source := calibrated_on(result)):
        found.append(f"quantised after training by NNCF, calibrated on {source}")
    elif result.precision == "int8":
        found.append("none here: the file came quantised")
    return found
