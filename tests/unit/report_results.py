"""Results and a comparison for tests of the page."""

from __future__ import annotations

from typing import Any

from sut.mlperf.metrics import METRICS
from sut.results.schema import Result

EVIL = (
    "<script>document.title=1</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></style><iframe src='https://example.com'></iframe>",
    "{{ 7 * 7 }} \u202etxt.exe \udce9 " + "x" * 300,
)
"""Names that would be code where they are not taken for words."""

STAGES = {
    "issue_delay": 20_000, "queue": 130_000, "decode": 1_800_000, "resize": 400_000, "normalize": 200_000,
    "infer": 2_500_000, "postprocess": 20_000, "complete": 12_000, "residual": -3_000,
}  # fmt: skip


def a_result(rate: float = 180.5, **changes: Any) -> Result:
    """A VALID SingleStream run, unless told otherwise; ``rate`` in samples per second."""
    scenario = changes.get("scenario", "SingleStream")
    name, _, higher = METRICS[scenario]
    total = sum(STAGES.values())
    fields: dict[str, Any] = {
        "schema": 1, "model": "efficientnet-lite0", "model_sha256": "ab" * 32, "weights": "trained",
        "backend": "onnxruntime", "backend_version": "1.31.1", "device": "cpu",
        "attested": {"provider": "CPUExecutionProvider", "precision": "fp32"}, "preprocess": "opencv",
        "recipe": {"name": "efficientnet-lite0"}, "precision": "fp32", "boundary": "tensor", "scenario": scenario,
        "mode": "performance", "valid": True, "invalid_reasons": [], "failed_samples": 0,
        "metric": {"name": name, "value": rate if higher else 5.3e6, "higher_is_better": higher},
        "queries_per_second": rate, "samples_per_second": rate, "samples": 1151, "queries": 1151,
        "recorded_samples": 1151, "duration_s": 1151 / rate,
        "latency_ns": {"mean": total, "min": 4_300_007, "p50": 5_000_113, "p80": 5_200_000, "p90": 5_400_000,
                       "p95": 5_700_000, "p97": 6_000_000, "p99": 7_900_211, "p99_9": 250_000_000,
                       "max": 251_000_000},
        "parity": {"max_levels": 1, "mean_levels": 1e-4, "share_over_1": 0.0, "psnr_db": 89.2, "pictures": 8},
        "stages_ns": {stage: {"mean": ns, "p50": ns, "p99": 3 * ns, "middle": ns, "tail": 2 * ns}
                      for stage, ns in STAGES.items()},
        "cost_ns": {stage: ns for stage, ns in STAGES.items() if stage in ("decode", "resize", "normalize", "infer")},
        "batch_sizes": {"1": 649, "2": 19, "8": 58}, "memory_bytes": {"host_peak": 256_876_544},
        "cpu_seconds_per_sample": 0.0249, "rules_broken": ["min_duration 3 s < 600 s"], "notes": [],
        "plan": {"lanes": 1}, "config": {"lanes": None, "threads": None, "max_batchsize": 8, "dataset": "demo"},
        "system": {"cpu": "AMD EPYC", "cores": 2, "memory": "24684092 kB", "platform": "Linux"},
        "versions": {"python": "3.11.7"}, "started": "2026-11-28T08:40:13+00:00",
    }  # fmt: skip
    return Result(**fields | changes)


def a_comparison() -> dict[str, Any]:
    """A compare.json with a baseline, a better cell and one that does not work."""
    metric = {"name": "samples_per_second", "value": 181.25, "higher_is_better": True}
    row = {
        "cell": "onnxruntime fp32", "settings": {}, "model": "efficientnet-lite0", "boundary": "tensor",
        "scenario": "Offline", "metric": metric, "samples_per_second": 181.25,
        "latency_ns": {"p50": 5_000_113, "p99": 7_900_211}, "ratio": None, "cpu_seconds_per_sample": 0.0111,
        "memory_bytes": 256_876_544, "accuracy": None, "agreement": None, "parity": None, "bare": 190.4,
        "verdict": "slower", "barred": None, "against": "onnxruntime fp32",
        "figures": {"0": 150.5, "1": 178.5, "2": 181.25, "3": 185.0, "4": 182.5}, "result": None, "reason": None,
    }  # fmt: skip
    ratio = {"value": 3.127, "low": 2.81, "high": 3.44, "pairs": 4, "verdict": "better"}
    better = row | {
        "cell": "openvino int8", "metric": metric | {"value": 566.5}, "samples_per_second": 566.5, "ratio": ratio,
        "verdict": "best", "figures": {"0": 470.25, "1": 566.5, "2": 560.0, "3": 578.75, "4": 571.25},
        "agreement": {"value": 0.992}, "accuracy": {"value": 0.7543}, "parity": {"max_levels": 2},
        "bare": {"samples_per_second": 571.25}, "memory_bytes": {"host_peak": 12_345_678}, "price_per_million": 0.117,
    }  # fmt: skip
    broken = {"cell": "dali", "settings": {}, "reason": "nvidia-dali is not installed"}
    return {
        "schema": 1, "command": "compare", "baseline": "onnxruntime fp32",
        "sentence": "use openvino int8: 3.13 x (2.81 to 3.44) against onnxruntime fp32 at 99.2 % same labels",
        "rows": [row, better, broken],
    }  # fmt: skip
