"""systems/SYSTEM.json: what the results know, what the user tells, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sut.mlperf import official
from sut.mlperf.tree.judge import REHEARSAL
from sut.results.gpus import GpuUse
from sut.studies.submission.runs import Runs
from sut.studies.submission.systems import missing_fields, system_json
from tests.unit.studies.submission.finished_runs import SYSTEM, about, finished

ASKED = """
    division submitter status system_name number_of_nodes host_processor_model_name host_processors_per_node
    host_processor_core_count host_memory_capacity host_storage_capacity host_storage_type accelerators_per_node
    accelerator_model_name accelerator_memory_capacity framework operating_system system_type other_software_stack
    host_processor_frequency host_processor_caches host_memory_configuration host_processor_interconnect
    host_networking host_networking_topology accelerator_frequency accelerator_host_interconnect
    accelerator_interconnect accelerator_interconnect_topology accelerator_memory_configuration
    accelerator_on-chip_memories cooling hw_notes sw_notes host_network_card_count system_type_detail
"""
UNKNOWABLE = [
    *("host_memory_configuration", "host_storage_capacity", "host_storage_type"),
    *("host_networking", "host_network_card_count", "host_networking_topology", "cooling"),
]


def runs_with(folder: Path, **changes: object) -> Runs:
    return finished(folder, "Offline", roles=("performance",), **changes)


def test_every_field_that_is_asked_for_is_there(tmp_path: Path) -> None:
    assert set(system_json(runs_with(tmp_path), about(), None)) == set(ASKED.split())


def test_of_a_cpu_the_record_tells_all_but_what_no_program_can_know(tmp_path: Path) -> None:
    runs, untold = runs_with(tmp_path), about(fields={})

    found = system_json(runs, untold, None)

    assert (
        found
        | {
            "host_processor_model_name": "AMD EPYC 9654",
            "host_processors_per_node": "2",
            "host_processor_core_count": "96",
            "host_processor_frequency": "3700 MHz",
            "host_processor_caches": "L2 1 MiB, L3 32 MiB",
            "host_memory_capacity": "753.4 GiB",
            "accelerators_per_node": "0",
            "accelerator_model_name": "N/A",
            "framework": "onnxruntime 1.31.1",
            "other_software_stack": "loadgen-vision-sut 0.1.0+gabcdef0, python 3.11.7, mlcommons-loadgen 6.0.17",
        }
        == found
    )
    assert missing_fields(runs, untold) == UNKNOWABLE
    assert all(not found[name] for name in UNKNOWABLE)


def test_an_accelerator_is_what_the_run_worked_on(tmp_path: Path) -> None:
    gpus = [
        GpuUse(f"cuda:{each}", f"GPU-{each}", "NVIDIA H200", 141 * 2**30, 1980, 700.0, None, 9) for each in range(2)
    ]
    runs, untold = runs_with(tmp_path / "a", device="cuda:0,cuda:1", gpus=gpus), about(fields={})
    prepared_on_one = runs_with(tmp_path / "b", preprocess="dali-gpu", gpus=gpus[:1])

    found = system_json(runs, untold, None)

    assert [
        found[f"accelerator{name}"] for name in ("s_per_node", "_model_name", "_memory_capacity", "_frequency")
    ] == [*("2", "NVIDIA H200", "141 GiB", "1980 MHz")]
    assert set(missing_fields(runs, untold)) - set(UNKNOWABLE) == {
        *("accelerator_host_interconnect", "accelerator_interconnect", "accelerator_memory_configuration")
    }
    assert system_json(prepared_on_one, untold, None)["accelerators_per_node"] == "1"


def test_a_device_that_no_driver_tells_of_is_called_as_its_runtime_does(tmp_path: Path) -> None:
    runs = runs_with(tmp_path, device="npu", device_name="Some NPU")

    found = system_json(runs, about(fields={}), None)

    assert (found["accelerators_per_node"], found["accelerator_model_name"]) == ("1", "Some NPU")
    assert "accelerator_memory_capacity" in missing_fields(runs, about(fields={}))


@pytest.mark.parametrize("name", SYSTEM)
@pytest.mark.parametrize("value", [None, [], {}, "odd", -1, True, float("nan"), 10**400])
def test_a_record_that_does_not_say_is_missing_and_no_failure(name: str, value: object, tmp_path: Path) -> None:
    missing = missing_fields(runs_with(tmp_path, system=SYSTEM | {name: value}), about(fields={}))

    assert set(missing) >= set(UNKNOWABLE)


def test_what_is_told_wins_and_blanks_are_nothing(tmp_path: Path) -> None:
    told = about(fields={"host_processor_model_name": "EPYC", "cooling": " "})

    assert system_json(runs_with(tmp_path / "a"), told, None)["host_processor_model_name"] == "EPYC"
    assert "cooling" in missing_fields(runs_with(tmp_path / "b"), told)


def test_a_rehearsal_says_so_and_leaves_no_field_empty(tmp_path: Path) -> None:
    found = system_json(runs_with(tmp_path), about(fields={"sw_notes": "mine"}), ["few pictures", "short run"])

    assert found["sw_notes"] == f"{REHEARSAL}: few pictures; short run. mine"
    assert {name for name, value in found.items() if not value} <= set(official.SYSTEM_FREE_FIELDS)
