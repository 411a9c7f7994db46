"""What MLPerf Inference, round v6.1, asks of image classification: figures and fields, each in this one place."""

from __future__ import annotations

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
