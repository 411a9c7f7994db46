"""``sut serve`` and clients that are too many, too slow, gone, or no clients at all; and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as tc_grpc
from tritonclient.utils import InferenceServerException

from tests.serving import SIMULATED, Server, serve_line, served, small_model
from tests.unit.small_models import SIZE

ROW = np.random.default_rng(1).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
CAP = 3
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
IMPATIENT = (
    "import sut.serve.http as h; h.BODY_S = 1.0; import sut.serve.server as s; s._HEAD_S, s._MESSAGE_S = 1.0, 3.0"
)
"""Run before the server, so that slow clients need not be slow for long."""


def impatient_line(*options: str | Path) -> list[str | Path]:
    """The command that serves with the patience of ``IMPATIENT``."""
    line = serve_line(*options)
    start = line.index("-m")
    program = f"{IMPATIENT}; import runpy; runpy.run_module('sut', run_name='__main__', alter_sys=True)"
    return [*line[:start], "-c", program, *line[start + 2 :]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A small model, which answers at once."""
    folder = tmp_path_factory.mktemp("small")
    with served(folder, *small_model(folder), "--max-connections", "5000") as server:
        yield server


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that takes half a second for a batch of one, and three requests at a time; none waits longer than 5 s."""
    folder = tmp_path_factory.mktemp("slow")
    with served(folder, *sleeping(0.5), "--max-inflight", str(CAP), "--timeout", "5") as server:
        yield server


def sleeping(seconds: float) -> tuple[str, ...]:
    """Options of a server that takes so long for each request, which it answers one after the other."""
    planted = ("--set", f"backend_options.a_ms={1000 * seconds}", "--set", "backend_options.b_ms=0")
    return (*SIMULATED, *planted, "--lanes", "1", "--max-batchsize", "1")


def request_of(model: str, row: np.ndarray = ROW) -> bytes:
    """A request for one row, as it goes over the wire."""
    told = {"name": "images", "shape": row.shape, "datatype": "FP32", "parameters": {"binary_data_size": row.nbytes}}
    head = json.dumps({"inputs": [told], "parameters": {"binary_data_output": True}}).encode()
    return (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: a\r\nInference-Header-Content-Length: {len(head)}\r\n"
        f"Content-Length: {len(head) + row.nbytes}\r\n\r\n"
    ).encode() + b"".join([head, row.tobytes()])


LARGE = np.zeros((1, 3, 224, 224), np.float32)
"""A row as the simulated backend takes it."""


def connected(server: Server) -> socket.socket:
    found = socket.create_connection(server.http_address)
    found.settimeout(60)
    return found


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer; 0 where the connection ends first."""
    with suppress(ConnectionError), closing(connection.makefile("rb")) as stream:
        status = stream.readline().split()
        length = 0
        while (line := stream.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        if len(status) > 1:
            return int(status[1]), stream.read(length)
    return 0, b""


def asked(server: Server, body: bytes) -> int:
    with connected(server) as connection:
        connection.sendall(body)
        return answer_of(connection)[0]


def test_four_thousand_connections_at_once_are_all_answered(small: Server) -> None:
    before, body = small.requests("http"), request_of("small")
    with ExitStack() as stack:
        sockets = [stack.enter_context(connected(small)) for _ in range(4000)]
        assert asked(small, HEALTH) == 200
        for each in sockets:
            each.sendall(body)
        found = Counter(answer_of(each)[0] for each in sockets)
        again = sockets[:50]
        for each in again:
            each.sendall(body)
        found.update(answer_of(each)[0] for each in again)

    assert found == {200: 4050}
    assert small.requests("http") == {**before, "answered": before.get("answered", 0) + 4050}
    assert small.metrics()["sut_inflight_requests"] == 0


@pytest.mark.slow
def test_beyond_the_cap_of_connections_requests_are_refused_and_counted(tmp_path: Path) -> None:
    with served(tmp_path, *small_model(tmp_path), "--max-connections", "2") as server, ExitStack() as stack:
        first, second, third = (stack.enter_context(connected(server)) for _ in range(3))
        third.sendall(request_of("small"))
        refused = answer_of(third)
        assert third.recv(1) == b""
        for each in (first, second):
            each.sendall(request_of("small"))
        answered = [answer_of(each)[0] for each in (first, second)]
        first.close()
        second.close()

        assert refused[0] == 503 and b"2 connections are open, which is the cap" in refused[1]
        assert answered == [200, 200]
        assert server.requests("http") == {"answered": 2, "refused": 1}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_beyond_the_cap_requests_are_refused_and_none_is_lost(slow: Server, protocol: str) -> None:
    ask = ask_http if protocol == "http" else ask_grpc
    before = slow.requests(protocol)
    with ThreadPoolExecutor(12) as pool:
        found = Counter(pool.map(lambda _: ask(slow), range(12)))

    after = slow.requests(protocol)
    assert found.keys() == {"answered", "refused"} and found["answered"] >= CAP
    assert {each: after[each] - before.get(each, 0) for each in found} == found


def ask_http(server: Server) -> str:
    return {200: "answered", 503: "refused"}[asked(server, request_of(server.model, LARGE))]


def ask_grpc(server: Server, timeout_s: float | None = None) -> str:
    given = tc_grpc.InferInput("images", list(LARGE.shape), "FP32")
    given.set_data_from_numpy(LARGE)
    with tc_grpc.InferenceServerClient(server.grpc_target) as client:
        try:
            client.infer(server.model, [given], client_timeout=timeout_s)
        except InferenceServerException as error:
            assert "which is the cap" in str(error) or timeout_s, error
            return "refused"
    return "answered"


def test_requests_that_are_given_up_stay_under_the_cap_until_the_lanes_let_go(slow: Server) -> None:
    samples = slow.metrics()["sut_samples_total"]
    with ThreadPoolExecutor(CAP) as pool:
        given_up = list(pool.map(lambda _: ask_grpc(slow, 0.1), range(CAP)))
    refused = ask_grpc(slow)
    wait_until(lambda: slow.metrics()["sut_inflight_requests"] == 0)

    assert given_up == ["refused"] * CAP and refused == "refused"
    assert slow.metrics()["sut_samples_total"] == samples + CAP
    assert ask_grpc(slow) == "answered"


def wait_until(done: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_that_is_killed_in_its_request_leaves_nothing_behind(slow: Server) -> None:
    with connected(slow) as connection:
        connection.sendall(request_of(slow.model, LARGE))
        wait_until(lambda: slow.metrics()["sut_inflight_requests"] == 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as a reset

    wait_until(lambda: slow.metrics()["sut_inflight_requests"] == 0)
    assert ask_http(slow) == "answered"


@pytest.mark.slow
def test_an_answer_that_takes_too_long_is_told_as_such(tmp_path: Path) -> None:
    with served(tmp_path, *sleeping(1.0), "--timeout", "0.1") as server:
        assert asked(server, request_of(server.model, LARGE)) == 504
        assert server.requests("http") == {"failed": 1}


GARBAGE = {
    "noise": np.random.default_rng(5).bytes(5000),
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no ascii": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "length": b"POST /v2/models/small/infer HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "two lengths": b"POST /v2/models/small/infer HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "json length": b"POST /v2/models/small/infer HTTP/1.1\r\nContent-Length: 2\r\n"
    b"Inference-Header-Content-Length: \xb2\r\n\r\n{}",
    "no body": b"POST /v2/models/small/infer HTTP/1.1\r\nHost: a\r\n\r\n",
    "deep": b"POST /v2/models/small/infer HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "endless head": b"GET / HTTP/1.1\r\nA: " + b"a" * 1_000_000,
    "many heads": b"GET / HTTP/1.1\r\n" + b"A: a\r\n" * 200_000,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_gets_an_error_or_the_end_and_the_server_goes_on(small: Server, what: str) -> None:
    with connected(small) as connection:
        with suppress(ConnectionError):
            connection.sendall(GARBAGE[what])
        status = answer_of(connection)[0]

    assert status in (0, 400, 404)
    with socket.create_connection(tuple(small.grpc_target.rsplit(":", 1))) as connection, suppress(OSError):
        connection.settimeout(60)
        connection.sendall(GARBAGE[what])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert asked(small, request_of("small")) == 200
    assert ask_small_by_grpc(small) == (1, 10)


def ask_small_by_grpc(server: Server) -> Sequence[int]:
    given = tc_grpc.InferInput("images", list(ROW.shape), "FP32")
    given.set_data_from_numpy(ROW)
    with tc_grpc.InferenceServerClient(server.grpc_target) as client:
        found = client.infer(server.model, [given]).as_numpy("scores")
    assert found is not None
    return found.shape


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("impatient")
    with served(folder, line=impatient_line(*small_model(folder))) as server:
        yield server


@pytest.mark.first(5)
@pytest.mark.parametrize(
    ("first", "drips", "status"),
    [
        (b"", b"", 0),
        (b"GET /v2 HTTP/1.1\r\nA: ", b"a", 0),
        (HEALTH, b"\r\n", 0),
        (HEALTH + b"GET /v2 HTTP/1.1\r\nA: ", b"a", 0),
        (b"POST /v2/models/small/infer HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", b"a", 408),
        (b"POST /v2/models/small/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 408),
        (b"POST /v2/models/none/infer HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", b"a", 404),
        (b"POST /v2/models/small/infer HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n", b"a", 413),
    ],
    ids=["nothing", "head", "lines", "second head", "body", "chunks", "refused body", "large body"],
)
def test_a_slow_client_is_ended(impatient: Server, first: bytes, drips: bytes, status: int) -> None:
    """It would go on for a minute; the server has patience for 1 s, or 3."""
    with connected(impatient) as connection:
        connection.sendall(first)
        if first.startswith(HEALTH):
            assert answer_of(connection)[0] == 200
        answer, seconds = dripped(connection, drips)

    assert seconds < 30
    assert answer.startswith(f"HTTP/1.1 {status}".encode() if status else b"")
    assert asked(impatient, request_of("small")) == 200


def dripped(connection: socket.socket, drips: bytes) -> tuple[bytes, float]:
    """What comes while something is sent every tenth of a second until the server ends it, and how long that took."""
    begin, answer = time.monotonic(), b""
    connection.settimeout(0.1)
    while time.monotonic() - begin < 60:
        try:
            if drips:
                connection.sendall(drips)
            if not (piece := connection.recv(65536)):
                break
            answer += piece
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return answer, time.monotonic() - begin


@pytest.mark.first(1)
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_the_end_answers_what_was_taken_up(tmp_path: Path, which: signal.Signals) -> None:
    with served(tmp_path, *sleeping(0.5)) as server, ThreadPoolExecutor(5) as pool:
        over_http = [pool.submit(ask_http, server) for _ in range(3)]
        over_grpc = [pool.submit(ask_grpc, server) for _ in range(2)]
        wait_until(lambda: server.metrics()["sut_inflight_requests"] == 5)
        server.running.signal(which)
        found = [each.result() for each in (*over_http, *over_grpc)]
        done = server.running.finish(60)

    assert found == ["answered"] * 5
    assert (done.code, done.errors, done.left) == (0, [], [])
    assert "Traceback" not in done.err


@pytest.mark.slow
@pytest.mark.parametrize(("grace", "again"), [("60", True), ("0.5", False)], ids=["second signal", "no patience left"])
def test_an_end_that_waits_for_nobody_says_so(tmp_path: Path, grace: str, again: bool) -> None:
    with served(tmp_path, *sleeping(1.0), "--grace", grace) as server, ExitStack() as stack:
        waiting = [stack.enter_context(connected(server)) for _ in range(60)]  # which would take a minute
        for each in waiting:
            each.sendall(request_of(server.model, LARGE))
        wait_until(lambda: server.metrics()["sut_inflight_requests"] == 60)
        server.running.signal(signal.SIGTERM)
        if again:
            wait_until(lambda: server.get("/v2/health/ready")[0] == 503)
            server.running.signal(signal.SIGTERM)
        done = server.running.finish(30)
        found = Counter(answer_of(each)[0] for each in waiting)

    assert done.code == 3
    assert found[503] >= 57 and found.total() == found[200] + found[503]
    assert "not all requests that were taken up were answered" in done.error
