"""What MLPerf Inference, round v6.1, asks of its vision benchmarks: figures and fields, each in this one place."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

MODEL = "resnet50"
ACCURACY_TARGET = 0.756954
"""99 % of the reference's 76.46 % top-1."""
MIN_DURATION_S = 600
"""In every scenario, of performance runs and audits, in the open division too."""
SERVER_BOUND_MS = 15
PERFORMANCE_SAMPLES = 1024
"""The least performance_sample_count."""
QUERIES = MappingProxyType({"SingleStream": 64, "MultiStream": 662, "Server": 459})
"""The fewest with which early stopping can be satisfied; Server's with none that is late."""
OFFLINE_SAMPLES = 24576
MULTISTREAM_SAMPLES = 8
"""Samples in a query."""
PERCENTILES = MappingProxyType({"SingleStream": 0.9, "MultiStream": 0.99, "Server": 0.99})
EDGE = ("SingleStream", "MultiStream", "Offline")
"""The scenarios of a closed edge submission; ``datacenter,edge`` adds Server."""
INFERRED = MappingProxyType({"MultiStream": ("SingleStream",), "Offline": ("SingleStream", "MultiStream")})
"""From which scenarios' results another's may be inferred, on the edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What is asked of one model; what is asked of all stands beside it in this file."""

    name: str
    """In a submission's tree."""
    conf: str
    """In mlperf.conf: LoadGen's settings."""
    metric: str
    """``Score.name`` of the task."""
    target: float
    """The least accuracy in the closed division, as a fraction."""
    dataset: str
    pictures: int
    performance_samples: int
    """The least performance_sample_count."""
    audits: tuple[str, ...]
    server_bound_ms: float | None = None
    """None where there is no Server."""
    exports_differ: bool = False
    """Whether every submitter exports a file of his own: the accuracy run of the same file is the judge."""
    retired: bool = False
    """No round takes it any more."""


BENCHMARKS: MappingProxyType[str, Benchmark] = MappingProxyType(
    {
        each.name: each
        for each in (
            Benchmark(
                name="resnet50",
                conf="resnet50",
                metric="top1",
                target=0.756954,  # 99 % of the reference's 76.46 %
                dataset="imagenet",
                pictures=50_000,
                performance_samples=1024,
                audits=("TEST01", "TEST04"),
                server_bound_ms=15,
            ),
            *(
                Benchmark(
                    name=name,
                    conf="yolo",
                    metric="mAP",
                    target=share * 0.534,
                    dataset="coco",
                    pictures=1525,
                    performance_samples=64,
                    audits=("TEST01",),
                    exports_differ=True,
                )
                for name, share in (("yolo-95", 0.95), ("yolo-99", 0.99))
            ),
            Benchmark(
                name="retinanet",
                conf="retinanet",
                metric="mAP",
                target=0.99 * 0.3755,
                dataset="openimages",
                pictures=24_781,
                performance_samples=64,
                audits=("TEST01",),
                server_bound_ms=100,
                retired=True,
            ),
        )
    }
)
"""By name."""

AUDITS: MappingProxyType[str, MappingProxyType[str, int]] = MappingProxyType(
    {
        "TEST01": MappingProxyType(
            {"mode": 2, "accuracy_log_rng_seed": 720381539243781796, "accuracy_log_sampling_target": 4096}
        ),
        "TEST04": MappingProxyType(
            {
                "mode": 2,
                "performance_issue_same": 1,
                "performance_issue_same_index": 3,
                "performance_issue_unique": 0,
            }
        ),
    }
)
"""The audits of the closed division, and what the audit.config of each sets."""

SYSTEM_FIELDS = (
    *("division", "submitter", "system_type", "status", "system_name", "number_of_nodes"),
    *("host_processor_model_name", "host_processors_per_node", "host_processor_core_count"),
    *("host_memory_capacity", "host_memory_configuration", "host_storage_capacity", "host_storage_type"),
    *("host_networking", "host_network_card_count", "host_networking_topology"),
    *("accelerators_per_node", "accelerator_model_name", "accelerator_memory_capacity"),
    *("accelerator_memory_configuration", "accelerator_host_interconnect", "accelerator_interconnect"),
    *("cooling", "framework", "operating_system", "other_software_stack"),
)
"""Fields of systems/SYSTEM.json that must say something."""
SYSTEM_FREE_FIELDS = (
    *("host_processor_frequency", "host_processor_caches", "host_processor_interconnect"),
    *("accelerator_frequency", "accelerator_interconnect_topology", "accelerator_on-chip_memories"),
    *("hw_notes", "sw_notes", "system_type_detail"),
)
"""Those that must be there, and may be empty."""
MEASUREMENTS = (
    *("input_data_types", "retraining"),
    *("starting_weights_filename", "weight_data_types", "weight_transformations"),
)
"""Fields of measurements.json; all must say something."""
STATUSES = ("available", "preview", "rdi")
"""Whether a system can be bought."""
