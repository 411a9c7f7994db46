"""``sut serve`` and clients that are not ours: tritonclient over HTTP and gRPC, curl."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
import tritonclient.grpc as tc_grpc
import tritonclient.http as tc_http
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from sut.datasets.demo import open_demo
from tests.serving import Server, served, small_model
from tests.unit.small_models import CLASSES, SIZE, scores

CLIENTS = {"http": tc_http, "grpc": tc_grpc}
ROWS = np.random.default_rng(1).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
MEGABYTES = 1.0
"""Size of a request at most."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def tensors(folder: Path) -> Iterator[Server]:
    """The small classifier, which takes tensors, and memory of this host."""
    with served(folder, *small_model(folder), "--shared-memory", "--max-request-mb", str(MEGABYTES)) as server:
        yield server


@pytest.fixture(scope="module")
def truth(tensors: Server, folder: Path) -> NDArray[np.float32]:
    return scores(folder / "small.onnx", ROWS)


@pytest.fixture(scope="module")
def files(folder: Path) -> Iterator[Server]:
    """The same, which takes pictures as files."""
    with served(folder, *small_model(folder), "--boundary", "jpeg", "--served-name", "own") as server:
        yield server


def client(server: Server, protocol: str, **how: Any) -> Any:
    url = (server.http if protocol == "http" else server.grpc).rpartition("/")[2]
    return CLIENTS[protocol].InferenceServerClient(url, **how)


def tensor(protocol: str, rows: NDArray[Any], datatype: str = "FP32", name: str = "images", **how: Any) -> Any:
    made = CLIENTS[protocol].InferInput(name, list(rows.shape), datatype)
    made.set_data_from_numpy(rows, **how)
    return made


def curled(url: str, body: bytes, *options: str) -> Any:
    """What curl gets for a body."""
    line = ["curl", "--silent", "--data-binary", "@-", *options, url]
    return json.loads(subprocess.run(line, input=body, capture_output=True, check=True, timeout=60).stdout)


def pictures(protocol: str, bodies: Sequence[bytes]) -> Any:
    return tensor(protocol, np.array(bodies, object).reshape(-1, 1), "BYTES", "jpeg")


@pytest.mark.parametrize("protocol", CLIENTS)
def test_it_tells_what_it_has(tensors: Server, protocol: str) -> None:
    asked = client(tensors, protocol)
    told = {"as_json": True} if protocol == "grpc" else {}

    assert asked.is_server_live() and asked.is_server_ready() and asked.is_model_ready("small")
    assert "binary_tensor_data" in asked.get_server_metadata(**told)["extensions"]
    metadata = asked.get_model_metadata("small", "1", **told)
    [images], [found] = metadata["inputs"], metadata["outputs"]
    assert (images["datatype"], [int(axis) for axis in images["shape"]]) == ("FP32", [-1, 3, SIZE, SIZE])
    assert (found["name"], found["datatype"]) == ("scores", "FP32")
    config = asked.get_model_config("small", **told)
    config = config.get("config", config)
    assert config["max_batch_size"] == 8 and config["backend"] == "onnxruntime"
    assert config["parameters"]["precision"]["string_value"] == "fp32"


@pytest.mark.parametrize("protocol", CLIENTS)
def test_rows_get_the_models_own_scores_and_the_requests_id(
    tensors: Server, truth: NDArray[np.float32], protocol: str
) -> None:
    before, bytes_before = tensors.requests(protocol).get("answered", 0), received(tensors, protocol)

    answer = client(tensors, protocol).infer("small", [tensor(protocol, ROWS)], request_id="mine 7")

    np.testing.assert_allclose(answer.as_numpy("scores"), truth, rtol=1e-4, atol=1e-5)
    told = answer.get_response(as_json=True) if protocol == "grpc" else answer.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("mine 7", "small", "1")
    times = told["parameters"]
    assert {"queue_ns", "preprocess_ns", "compute_ns"} <= times.keys()
    assert tensors.requests(protocol)["answered"] == before + 1
    assert received(tensors, protocol) == bytes_before + ROWS.nbytes


def received(server: Server, protocol: str) -> float:
    return server.metrics().get(f'sut_received_bytes_total{{protocol="{protocol}"}}', 0)


def test_json_alone_is_enough(tensors: Server, truth: NDArray[np.float32]) -> None:
    own = [tensor("http", ROWS, binary_data=False)], [tc_http.InferRequestedOutput("scores", binary_data=False)]

    answer = client(tensors, "http").infer("small", own[0], outputs=own[1])

    assert "data" in answer.get_response()["outputs"][0]
    np.testing.assert_allclose(answer.as_numpy("scores"), truth, rtol=1e-4, atol=1e-5)


def test_grpc_takes_elements_one_by_one(tensors: Server, truth: NDArray[np.float32]) -> None:
    request = pb.ModelInferRequest(model_name="small")
    request.inputs.add(name="images", datatype="FP32", shape=ROWS.shape).contents.fp32_contents.extend(
        ROWS.ravel().tolist()
    )

    with grpc.insecure_channel(tensors.grpc_target) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)

    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(3, CLASSES)
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)


def test_curl_gets_an_answer(tensors: Server, truth: NDArray[np.float32]) -> None:
    given = {"name": "images", "shape": ROWS[:1].shape, "datatype": "FP32", "data": ROWS[:1].ravel().tolist()}
    url = f"{tensors.http}/v2/models/small/versions/1/infer"

    [output] = curled(url, json.dumps({"inputs": [given]}).encode())["outputs"]

    np.testing.assert_allclose(output["data"], truth[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("protocol", CLIENTS)
def test_files_are_preprocessed_there_and_a_bad_one_is_refused_by_its_row(files: Server, protocol: str) -> None:
    demo = open_demo()
    photos = [demo.read(index) for index in range(3)]
    asked = client(files, protocol)

    alone = [asked.infer("own", [pictures(protocol, [each])]).as_numpy("scores")[0] for each in photos]
    together = asked.infer("own", [pictures(protocol, photos)]).as_numpy("scores")
    with pytest.raises(InferenceServerException, match=r"\(row 1\)"):
        asked.infer("own", [pictures(protocol, [photos[0], b"no picture", photos[2]])])
    png = cv2.imencode(".png", cv2.imdecode(np.frombuffer(photos[0], np.uint8), cv2.IMREAD_COLOR))[1].tobytes()

    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        asked.infer("own", [pictures(protocol, [png])]).as_numpy("scores")[0], alone[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("protocol", CLIENTS)
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rows": ROWS.astype(np.float16), "datatype": "FP16"}, "is FP16"),
        ({"rows": ROWS[:, :, :8]}, "expected FP32 [-1, 3, 16, 16]"),
        ({"rows": ROWS[0]}, "expected FP32 [-1, 3, 16, 16]"),
        ({"rows": ROWS, "name": "pictures"}, "expected 'images' alone"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_by_name(
    tensors: Server, protocol: str, wrong: dict[str, Any], told: str
) -> None:
    before = tensors.requests(protocol).get("refused", 0)

    with pytest.raises(InferenceServerException) as refused:
        client(tensors, protocol).infer("small", [tensor(protocol, **wrong)])

    assert told in str(refused.value)
    assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    assert tensors.requests(protocol)["refused"] == before + 1


@pytest.mark.parametrize("protocol", CLIENTS)
def test_what_is_not_there_is_called_unknown(tensors: Server, protocol: str) -> None:
    asked = client(tensors, protocol)
    unknown = ("404", "StatusCode.NOT_FOUND")

    for model, version in (("large", ""), ("small", "2")):
        with pytest.raises(InferenceServerException) as refused:
            asked.infer(model, [tensor(protocol, ROWS)], model_version=version)
        assert refused.value.status() in unknown
        with pytest.raises(InferenceServerException):
            asked.get_model_metadata(model, version)
    with pytest.raises(InferenceServerException, match="no output 'labels'; there are scores"):
        asked.infer("small", [tensor(protocol, ROWS)], outputs=[CLIENTS[protocol].InferRequestedOutput("labels")])
    with pytest.raises(InferenceServerException):
        asked.get_model_repository_index()


@pytest.mark.parametrize("path", ["/", "/v2/models", "/v2/models/small/nothing", "/v2/models/large", "/v3"])
def test_paths_that_lead_nowhere(tensors: Server, path: str) -> None:
    status, body = tensors.get(path)

    assert status == 404 and "error" in json.loads(body)


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_request_that_is_too_large_is_refused(tensors: Server, protocol: str) -> None:
    large = np.zeros((1000, 3, SIZE, SIZE), np.float32)  # 3 MB

    with pytest.raises(InferenceServerException) as refused:
        client(tensors, protocol).infer("small", [tensor(protocol, large)])

    assert refused.value.status() in ("413", "StatusCode.RESOURCE_EXHAUSTED")
    assert client(tensors, protocol).infer("small", [tensor(protocol, ROWS)]) is not None


@pytest.mark.parametrize("protocol", CLIENTS)
def test_so_many_rows_that_each_is_nothing_are_refused(files: Server, protocol: str) -> None:
    with pytest.raises(InferenceServerException, match="100,000 rows, expected 1,024 at the most"):
        client(files, protocol).infer("own", [pictures(protocol, [b""] * 100_000)])


@pytest.mark.parametrize("protocol", CLIENTS)
def test_what_is_compressed_is_refused(tensors: Server, protocol: str) -> None:
    with pytest.raises(InferenceServerException) as refused:
        if protocol == "http":
            client(tensors, "http").infer("small", [tensor("http", ROWS)], request_compression_algorithm="gzip")
        else:
            client(tensors, "grpc").infer("small", [tensor("grpc", ROWS)], compression_algorithm="gzip")

    assert "ompress" in str(refused.value)


def test_a_body_that_unfolds_is_not_unfolded(tensors: Server) -> None:
    url, body = f"{tensors.http}/v2/models/small/infer", gzip.compress(bytes(50_000_000))

    assert "compressed bodies are not read" in curled(url, body, "--header", "Content-Encoding: gzip")["error"]


@pytest.mark.parametrize("protocol", CLIENTS)
def test_tensors_in_shared_memory(tensors: Server, truth: NDArray[np.float32], protocol: str) -> None:
    asked, sent = client(tensors, protocol), received(tensors, protocol)
    memory = SharedMemory(create=True, size=ROWS.nbytes + 1000)
    np.ndarray(ROWS.shape, np.float32, memory.buf)[:] = ROWS
    asked.register_system_shared_memory("mine", f"/{memory.name}", ROWS.nbytes + 1000)
    given = CLIENTS[protocol].InferInput("images", list(ROWS.shape), "FP32")
    given.set_shared_memory("mine", ROWS.nbytes)
    wanted = CLIENTS[protocol].InferRequestedOutput("scores")
    wanted.set_shared_memory("mine", truth.nbytes, ROWS.nbytes)
    try:
        asked.infer("small", [given], outputs=[wanted])
        found = np.ndarray(truth.shape, np.float32, memory.buf, ROWS.nbytes).copy()
        status = asked.get_system_shared_memory_status()
        with pytest.raises(InferenceServerException, match="registered already"):
            asked.register_system_shared_memory("mine", f"/{memory.name}", 1000)
        os.truncate(f"/dev/shm/{memory.name}", 1000)
        with pytest.raises(InferenceServerException, match="become shorter"):
            asked.infer("small", [given])
        asked.unregister_system_shared_memory("mine")
        with pytest.raises(InferenceServerException, match="'mine' is not registered"):
            asked.infer("small", [given])
    finally:
        memory.unlink()

    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)
    assert "mine" in str(status)
    assert received(tensors, protocol) == sent


@pytest.mark.parametrize("protocol", CLIENTS)
def test_memory_is_not_shared_unless_that_is_allowed(files: Server, protocol: str) -> None:
    with pytest.raises(InferenceServerException):
        client(files, protocol).register_system_shared_memory("mine", "/some", 1000)


@pytest.mark.parametrize(
    "how", [{}, {"shared_memory_byte_size": "many"}, {"shared_memory_byte_size": float("inf")}], ids=str
)
def test_an_output_whose_place_is_not_told_is_refused_before_it_is_computed(
    tensors: Server, how: dict[str, Any]
) -> None:
    samples = tensors.metrics()["sut_samples_total"]
    given = {"name": "images", "shape": ROWS.shape, "datatype": "FP32", "data": ROWS.ravel().tolist()}
    wanted = {"name": "scores", "parameters": {"shared_memory_region": "mine", **how}}

    body = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
    assert "the request cannot be read" in curled(f"{tensors.http}/v2/models/small/infer", body)["error"]
    assert tensors.metrics()["sut_samples_total"] == samples
