"""Trees of submissions, written by hand: figures of runs that never were, in the form that LoadGen writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sut.mlperf.logs import Detail
from sut.mlperf.verify_audit import entries_expected
from tests.unit.mlperf.tree.logs import (
    DETAIL,
    METRIC,
    ROLES,
    SUMMARY,
    accuracy,
    as_yolo,
    detail,
    performance,
    summary,
)

ANSWERS = "mlperf_log_accuracy.json"
SUBMITTER, SYSTEM, MODEL = "Example", "box", "resnet50"
CLOSED = f"closed/{SUBMITTER}"
RESULTS = f"{CLOSED}/results/{SYSTEM}/{MODEL}"
OPEN = f"open/{SUBMITTER}"
OPEN_MODEL = "own-net"
OPEN_RESULTS = f"{OPEN}/results/{SYSTEM}/{OPEN_MODEL}"

EDGE = ("SingleStream", "MultiStream", "Offline")
SYSTEM_FIELDS = {
    "division": "closed",
    "submitter": SUBMITTER,
    "status": "available",
    "system_name": "A box on a desk",
    "number_of_nodes": "1",
    "host_processor_model_name": "A processor",
    "host_processors_per_node": "1",
    "host_processor_core_count": "8",
    "host_memory_capacity": "32 GB",
    "host_storage_capacity": "1 TB",
    "host_storage_type": "NVMe",
    "accelerators_per_node": "0",
    "accelerator_model_name": "N/A",
    "accelerator_memory_capacity": "N/A",
    "framework": "ONNX Runtime 1.20",
    "operating_system": "Debian 12",
    "system_type": "edge",
    "other_software_stack": "Python 3.11",
    "host_processor_frequency": "3.2 GHz",
    "host_processor_caches": "L3: 32 MB",
    "host_memory_configuration": "2 x 16 GB",
    "host_processor_interconnect": "none",
    "host_networking": "Ethernet",
    "host_networking_topology": "N/A",
    "accelerator_frequency": "none",
    "accelerator_host_interconnect": "N/A",
    "accelerator_interconnect": "N/A",
    "accelerator_interconnect_topology": "none",
    "accelerator_memory_configuration": "N/A",
    "accelerator_on-chip_memories": "none",
    "cooling": "air",
    "hw_notes": "a note",
    "sw_notes": "a note",
    "host_network_card_count": "1",
    "system_type_detail": "edge server",
}
MEASUREMENTS = {
    "input_data_types": "fp32",
    "retraining": "no",
    "starting_weights_filename": "resnet50_v1.onnx",
    "weight_data_types": "fp32",
    "weight_transformations": "none",
}
USER_CONF = {
    "SingleStream": "*.SingleStream.target_latency = 1.5\n",
    "MultiStream": "*.MultiStream.target_latency = 10\n",
    "Offline": "*.Offline.target_qps = 250\n",
    "Server": "*.Server.target_qps = 100\n*.Server.target_latency = 15\n",
}
SAMPLED = {"SingleStream": 1239, "MultiStream": 1367, "Offline": 4102, "Server": 4103}
"""How many answers TEST01's settings have LoadGen log, about."""
VERIFY_ACCURACY = """Verifying accuracy. This might take a while...
Reading accuracy mode results...
Reading performance mode results...
num_acc_log_entries = 50000
num_acc_log_duplicate_keys = 0
num_acc_log_data_mismatch = 0
num_perf_log_entries = {sampled}
num_perf_log_qsl_idx_match = {sampled}
num_perf_log_data_mismatch = 0
num_missing_qsl_idxs = 0
TEST PASS
"""


class Folder:
    """A tree to be changed before it is judged."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, content: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text, f"{path}: {old}"
        (self.root / path).write_text(text.replace(old, new, 1))

    def set(self, path: str, **fields: Any) -> None:
        """Fields of a JSON file; None takes one out."""
        values = json.loads((self.root / path).read_text()) | fields
        self.write(path, json.dumps({name: value for name, value in values.items() if value is not None}))

    def log(self, folder: str, **changes: Any) -> None:
        """Entries of a detail log, and what the summary says of them."""
        lines = (self.root / folder / DETAIL).read_text().splitlines()
        entries = {(each := json.loads(line.removeprefix(":::MLLOG ")))["key"]: each["value"] for line in lines}
        write_log(self, folder, {key: value for key, value in (entries | changes).items() if value is not None})


def closed_edge(root: Path) -> Folder:
    """A whole submission of the closed division, on the edge."""
    return _closed(Folder(root), "edge", EDGE)


def datacenter_edge(root: Path) -> Folder:
    """The same with Server."""
    return _closed(Folder(root), "datacenter,edge", (*EDGE, "Server"))


def open_division(root: Path) -> Folder:
    """A submission of the open division: one scenario of a model of one's own."""
    tree = Folder(root)
    system(tree, OPEN, "open", "edge", OPEN_MODEL)
    tree.write(f"{OPEN}/model_mapping.json", json.dumps({OPEN_MODEL: "resnet"}))
    scenario(tree, f"{OPEN_RESULTS}/Offline", "Offline", 0, ROLES[:2])
    tree.replace(
        f"{OPEN_RESULTS}/Offline/accuracy/accuracy.txt", "accuracy=76.456%, good=38228", "accuracy=10.000%, good=5000"
    )
    return tree


NETWORK = f"network/{SUBMITTER}"
NETWORK_RESULTS = f"{NETWORK}/results/{SYSTEM}/{MODEL}"
NETWORK_FIELDS = {
    "is_network": "true",
    "network_type": "Ethernet",
    "network_media": "copper",
    "network_rate": "25 Gb/s",
    "network_protocol": "gRPC over HTTP/2, TCP, IPv4",
    "network_topology": "one switch",
    "number_connections": "8",
    "nic_loadgen": "a card",
    "number_nic_loadgen": "1",
    "net_software_stack_loadgen": "Linux",
    "nic_sut": "a card",
    "number_nic_sut": "1",
    "net_software_stack_sut": "Linux",
}


def over_network(root: Path) -> Folder:
    """A whole submission of the network division."""
    tree = Folder(root)
    system(tree, NETWORK, "network", "datacenter", MODEL)
    tree.set(f"{NETWORK}/systems/{SYSTEM}.json", **NETWORK_FIELDS)
    tree.write(f"{NETWORK}/calibration.md", "Nothing was calibrated.\n")
    for number, name in enumerate(("Offline", "Server")):
        scenario(tree, f"{NETWORK_RESULTS}/{name}", name, number, ROLES, named)
    return tree


def named(entries: dict[str, Any]) -> dict[str, Any]:
    """The log of a system behind a network."""
    return entries | {"sut_name": "Network SUT: a server at grpc://192.0.2.7:8001"}


YOLO = RESULTS.replace(MODEL, "yolo-99")


def yolo_edge(root: Path) -> Folder:
    """A whole submission of MLPerf's detector, on the edge."""
    tree = Folder(root)
    system(tree, CLOSED, "closed", "edge", "yolo-99")
    tree.write(f"{CLOSED}/calibration.md", "Nothing was calibrated.\n")
    for number, name in enumerate(EDGE):
        folder = f"{YOLO}/{name}"
        scenario(tree, folder, name, number, ROLES[:3], as_yolo)
        counts = f"{folder}/TEST01/verify_accuracy.txt"
        entries = performance(name, "TEST01", datetime(2026, 1, 1))
        least, most = entries_expected(Detail(as_yolo(entries), ()))
        tree.write(counts, VERIFY_ACCURACY.replace("50000", "1525").format(sampled=(least + most) // 2))
        for place in (f"{folder}/accuracy", f"{folder}/TEST01/accuracy"):
            cut, digest = _boxes()
            tree.write(f"{place}/{ANSWERS}", cut)
            tree.write(f"{place}/accuracy.txt", f"mAP=53.412%\nhash={digest}\n")
    return tree


@cache
def _boxes() -> tuple[bytes, str]:
    """Answers of some boxes each, and of none."""
    lines = [f'{{ "seq_id" : {n}, "qsl_idx" : {n}, "data" : "{"0000803F" * (7 * (n % 9))}" }}' for n in range(1525)]
    whole = ("[\n" + ",\n".join(lines) + "\n]\n").encode()
    return whole[:4096] + b"\n\n...\n\n" + whole[-4096:], hashlib.sha256(whole).hexdigest()


def _closed(tree: Folder, kind: str, scenarios: tuple[str, ...]) -> Folder:
    system(tree, CLOSED, "closed", kind, MODEL)
    tree.write(f"{CLOSED}/calibration.md", "Nothing was calibrated.\n")
    for number, name in enumerate(scenarios):
        scenario(tree, f"{RESULTS}/{name}", name, number, ROLES)
    return tree


def system(tree: Folder, home: str, division: str, kind: str, model: str, name: str = SYSTEM) -> None:
    fields = SYSTEM_FIELDS | {"division": division, "system_type": kind, "submitter": home.rpartition("/")[2]}
    tree.write(f"{home}/systems/{name}.json", json.dumps(fields, indent=2))
    tree.write(f"{home}/src/{model}/README.md", "What was run.\n")


def scenario(
    tree: Folder,
    folder: str,
    name: str,
    number: int,
    roles: tuple[str, ...],
    of: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """A scenario's folder; ``number`` makes its runs different from others', ``of`` those of another benchmark."""
    tree.write(f"{folder}/measurements.json", json.dumps(MEASUREMENTS))
    tree.write(f"{folder}/user.conf", USER_CONF[name])
    tree.write(f"{folder}/README.md", "How it was run.\n")
    began = datetime(2026, 11, 20) + timedelta(hours=4 * number)
    for role in roles:
        began += timedelta(minutes=20)
        if role == "accuracy":
            write_log(tree, f"{folder}/accuracy", of(accuracy(name, began)))
            answers(tree, f"{folder}/accuracy", 50_000)
            continue
        test = "" if role == "performance" else f"{role}/"
        write_log(tree, f"{folder}/{test}performance/run_1", of(performance(name, role, began)))
        if test:
            audit(tree, f"{folder}/{role}", name)


def answers(tree: Folder, folder: str, count: int) -> None:
    """The answers' file, cut as a submission has it, and accuracy.txt with the hash of the whole."""
    cut, digest = _cut(count)
    tree.write(f"{folder}/{ANSWERS}", cut)
    tree.write(f"{folder}/accuracy.txt", f"accuracy=76.456%, good=38228, total=50000\nhash={digest}\n")


@cache
def _cut(count: int) -> tuple[bytes, str]:
    lines = [f'{{ "seq_id" : {each}, "qsl_idx" : {each}, "data" : "00002743" }}' for each in range(count)]
    whole = ("[\n" + ",\n".join(lines) + "\n]\n").encode()
    return whole[:4096] + b"\n\n...\n\n" + whole[-4096:], hashlib.sha256(whole).hexdigest()


def audit(tree: Folder, folder: str, scenario: str) -> None:
    test = folder.rpartition("/")[2]
    run, tested = (
        performance(scenario, role, datetime(2026, 1, 1))[METRIC[scenario]] for role in ("performance", test)
    )
    lines = f"Reference score = {run}\nTest score = {tested}\nTEST PASS\n"
    tree.write(f"{folder}/verify_performance.txt", f"Verifying performance.\n{lines}")
    if test == "TEST01":
        tree.write(f"{folder}/verify_accuracy.txt", VERIFY_ACCURACY.format(sampled=SAMPLED[scenario]))
        answers(tree, f"{folder}/accuracy", SAMPLED[scenario])


def write_log(tree: Folder, folder: str, entries: dict[str, Any]) -> None:
    tree.write(f"{folder}/{DETAIL}", detail(entries))
    tree.write(f"{folder}/{SUMMARY}", summary(entries))
