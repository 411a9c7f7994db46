"""What MLPerf Inference, round v6.1, asks of its vision benchmarks: figures and fields, each in this one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sut.datasets.base import IMAGENET_PICTURES
from sut.datasets.coco import SAFE_PICTURES

MODEL = "resnet50"
"""The benchmark that is meant where none is told."""
MIN_DURATION_S = 600
"""In every scenario, of performance runs and audits, in the open division too."""
QUERIES = MappingProxyType({"SingleStream": 64, "MultiStream": 662, "Server": 459})
"""The fewest with which early stopping can be satisfied; Server's with none that is late."""
MULTISTREAM_SAMPLES = 8
"""Samples in a query."""
PERCENTILES = MappingProxyType({"SingleStream": 0.9, "MultiStream": 0.99, "Server": 0.99})
NETWORK_SUT = "Network SUT"
"""What the name of a system that is reached over a network must have in it."""
EDGE = ("SingleStream", "MultiStream", "Offline")
"""The scenarios of a closed edge submission; ``datacenter,edge`` adds Server where a benchmark has it."""
DATACENTER = ("Offline", "Server")
"""Those of the datacenter suite, which alone the network division has."""
INFERRED = MappingProxyType({"MultiStream": ("SingleStream",), "Offline": ("SingleStream", "MultiStream")})
"""From which scenarios' results another's may be inferred, on the edge."""

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
"""The audits of the closed division, and what their audit.config sets, but for what a benchmark has its own of."""
SAMPLED = "accuracy_log_sampling_target"
"""How many answers TEST01 has LoadGen log, about: of each benchmark its own number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What is asked of one model; what is asked of all stands beside it in this file."""

    name: str
    """Here, and of its folder in a submission's tree."""
    judged_as: str
    """In MLCommons' checker, which maps other models to it."""
    folders: str
    """Which folders in a closed submission's tree are its: a regular expression."""
    conf: str
    """In mlperf.conf: LoadGen's settings."""
    task: str
    """That scores it."""
    metric: str
    """``Score.name`` of the task."""
    target: float
    """The least accuracy in the closed division, as a fraction."""
    dataset: str
    pictures: int
    performance_samples: int
    """The least performance_sample_count."""
    offline_samples: int
    """The fewest in Offline's one query. mlperf.conf has none for yolo: that is MLCommons' checker's."""
    audits: tuple[str, ...]
    sampled: int
    """TEST01's accuracy_log_sampling_target, by its audit.config in MLCommons' compliance/TEST01."""
    server_bound_ms: float | None = None
    """None where there is no Server."""
    exports_differ: bool = False
    """Whether every submitter exports a file of his own: the accuracy run of the same file is the judge."""
    retired: bool = False
    """No round takes it any more."""

    def audit(self, test: str) -> Mapping[str, int]:
        """What the audit.config of one of its audits sets."""
        settings = AUDITS[test]
        return {**settings, SAMPLED: self.sampled} if SAMPLED in settings else settings

    @property
    def scenarios(self) -> tuple[str, ...]:
        """All that it has, in MLPerf's order."""
        return EDGE if self.server_bound_ms is None else (*EDGE, "Server")

    @property
    def datacenter(self) -> tuple[str, ...]:
        """Those of the datacenter suite; none where it is not in that."""
        return () if self.server_bound_ms is None else DATACENTER


BENCHMARKS: MappingProxyType[str, Benchmark] = MappingProxyType(
    {
        each.name: each
        for each in (
            Benchmark(
                name=MODEL,
                judged_as="resnet",
                folders="resnet|(resnet50|mobilenet|efficientnet).*",
                conf="resnet50",
                task="classification",
                metric="top1",
                target=0.756954,  # 99 % of the reference's 76.46 %
                dataset="imagenet",
                pictures=IMAGENET_PICTURES,
                performance_samples=1024,
                offline_samples=24_576,
                audits=("TEST01", "TEST04"),
                sampled=4096,
                server_bound_ms=15,
            ),
            *(
                Benchmark(
                    name=name,
                    judged_as=name,
                    folders=name,
                    conf="yolo",
                    task="detection",
                    metric="mAP",
                    target=share * 0.534,
                    dataset="coco",
                    pictures=SAFE_PICTURES,
                    performance_samples=64,
                    offline_samples=1525,
                    audits=("TEST01",),
                    sampled=64,
                    exports_differ=True,
                )
                for name, share in (("yolo-95", 0.95), ("yolo-99", 0.99))
            ),
            Benchmark(
                name="retinanet",
                judged_as="retinanet",
                folders="retinanet",
                conf="retinanet",
                task="detection",
                metric="mAP",
                target=0.99 * 0.3755,
                dataset="openimages",
                pictures=24_781,
                performance_samples=64,
                offline_samples=24_576,
                audits=("TEST01",),
                sampled=64,  # as yolo's, of as many loaded samples: its own file was not to be had
                server_bound_ms=100,
                retired=True,
            ),
        )
    }
)
"""By name. Figures: MLCommons' submission_checker/constants.py, of v6.0, and mlperf.conf of LoadGen 6.0."""


def benchmark_of(name: str, conf: str = MODEL) -> Benchmark:
    """The benchmark that a model called ``name`` is; of one that is none of MLPerf's the one whose rules are applied.

    Those are the rules that ``conf``, its model's name in mlperf.conf, goes by.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    return next((each for each in BENCHMARKS.values() if each.conf == conf), BENCHMARKS[MODEL])


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
IS_NETWORK = "is_network"
"""The field of systems/SYSTEM.json that says "true" in the network division."""
SYSTEM_NETWORK_FIELDS = (
    *("network_type", "network_media", "network_rate", "network_protocol", "network_topology", "number_connections"),
    *("nic_loadgen", "number_nic_loadgen", "net_software_stack_loadgen"),
    *("nic_sut", "number_nic_sut", "net_software_stack_sut"),
)
"""Those that must say something there, too: fabric and protocol, and what is at both ends."""
MEASUREMENTS = (
    *("input_data_types", "retraining"),
    *("starting_weights_filename", "weight_data_types", "weight_transformations"),
)
"""Fields of measurements.json; all must say something."""
STATUSES = ("available", "preview", "rdi")
"""Whether a system can be bought."""
