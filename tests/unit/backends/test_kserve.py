"""The backend kserve against a server that answers as it is told to: what fails is named, and never asked again."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.base import ModelFile, Runner, Traffic
from backends.kserve import KServe
from backends.kserve_client import Endpoint, Late, Rejected, Unreachable, endpoint_of, is_url
from plugins.errors import DeviceNotFound
from tests.fake_kserve import MODEL, SERVERS, SHAPE, Fake, over_grpc, over_http, reset, scores, sending

ROWS = np.random.default_rng(2).normal(size=(2, *SHAPE)).astype(np.float32)
LIMIT_S = 30.0
"""Against hangs: what is slow here would take a minute or more."""


def loaded(url: str, model: str = MODEL, **options: Any) -> KServe:
    return KServe.load(ModelFile(None, sample_shape=SHAPE, name=model), url, 1, 1, {"timeout_s": 5.0, **options})


@contextmanager
def running(protocol: str, fake: Fake, **options: Any) -> Iterator[tuple[KServe, Runner]]:
    with SERVERS[protocol](fake) as url, loaded(url, **options) as backend, backend.runner() as runner:
        yield backend, runner


def infer(runner: Runner, rows: NDArray[np.float32] = ROWS) -> NDArray[Any]:
    slot = runner.slot(len(rows))
    slot.buffers["images"][:] = rows
    found: NDArray[Any] = runner.infer(slot)["scores"]
    return found


@pytest.mark.parametrize("protocol", SERVERS)
def test_metadata_decides_and_rows_get_their_answers(protocol: str) -> None:
    fake = Fake(times={"queue_ns": 5, "preprocess_ns": 6, "compute_ns": 7})
    with running(protocol, fake) as (backend, runner):
        found, alone = infer(runner), infer(runner, ROWS[1:])
        told = backend.attest()

        assert backend.inputs[0].shape == (None, *SHAPE) and backend.outputs[0].shape == (None, 2)
        assert backend.batch_sizes == tuple(range(1, 9))
        np.testing.assert_allclose(found, scores(ROWS), rtol=1e-5)
        np.testing.assert_allclose(alone, scores(ROWS[1:]), rtol=1e-5)
        assert (backend.details, runner.details_ns) == (("queue", "preprocess", "compute"), (5, 6, 7))
        assert backend.traffic() == Traffic(2, 3 * ROWS[0].nbytes, 3 * 8)
        assert (told.provider, told.model, told.precision) == ("fake 7", "small 1", "unknown")


@pytest.mark.parametrize(
    ("datatype", "shape", "place"),
    [("UINT8", (-1, -1, -1, 3), "pixels"), ("BYTES", (-1, 1), "files"), ("FP32", (-1, 3, -1, -1), "host")],
)
def test_what_crosses_is_what_the_metadata_leaves_open(datatype: str, shape: tuple[int, ...], place: str) -> None:
    with over_http(Fake(datatype=datatype, shape=shape)) as url, loaded(url) as backend:
        closed = tuple({-1: None}.get(axis, axis) for axis in shape[1:])
        assert backend.places == (place,)
        assert backend.inputs[0].shape[1:] == (SHAPE if place == "host" else closed)


def test_elements_that_come_one_by_one_are_read_too() -> None:
    with running("grpc", Fake(lists=True)) as (_, runner):
        np.testing.assert_allclose(infer(runner), scores(ROWS), rtol=1e-5)


REFUSED = {
    "no rows": lambda outputs: {"scores": outputs["scores"][:0]},
    "a row less": lambda outputs: {"scores": outputs["scores"][:1]},
    "a row more": lambda outputs: {"scores": np.repeat(outputs["scores"], 2, 0)},
    "another width": lambda outputs: {"scores": np.repeat(outputs["scores"], 2, 1)},
    "a number": lambda outputs: {"scores": outputs["scores"][0, 0].reshape(())},
    "other numbers": lambda outputs: {"scores": outputs["scores"].astype(np.float16)},
    "another name": lambda outputs: {"labels": outputs["scores"]},
    "nothing": lambda outputs: {},
}


@pytest.mark.parametrize("protocol", SERVERS)
@pytest.mark.parametrize("what", REFUSED)
def test_an_answer_that_is_not_what_was_promised_is_none(protocol: str, what: str) -> None:
    with running(protocol, Fake(spoilt=REFUSED[what])) as (backend, runner):
        with pytest.raises(Rejected, match="scores"):
            infer(runner)

        assert backend.traffic() == Traffic()


@pytest.mark.parametrize("protocol", SERVERS)
def test_an_answer_of_another_version_is_none(protocol: str) -> None:
    with running(protocol, Fake(answering="2")) as (_, runner), pytest.raises(Rejected, match="version 2 of small"):
        infer(runner)


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_server_that_has_become_another_is_found_out(protocol: str) -> None:
    fake = Fake(config={"parameters": {"sha256": {"string_value": "ab"}}})
    with running(protocol, fake) as (backend, _):
        backend.check_unchanged()
        fake.config = {"parameters": {"sha256": {"string_value": "cd"}}}

        with pytest.raises(Rejected, match="another than at the begin: model was small 1 ab, is small 1 cd"):
            backend.check_unchanged()


@pytest.mark.parametrize("version", [1, "1"])
def test_of_several_versions_one_is_named_as_the_command_line_reads_it(version: int | str) -> None:
    with running("grpc", Fake(versions=("1", "2")), version=version) as (backend, runner):
        infer(runner)

        assert backend.attest().model == "small 1"


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_server_that_has_got_a_second_version_is_the_same(protocol: str) -> None:
    fake = Fake()
    with running(protocol, fake) as (backend, _):
        fake.versions = ("1", "2")

        backend.check_unchanged()


@pytest.mark.parametrize("protocol", SERVERS)
@pytest.mark.parametrize("value", [-5, 2**62])
def test_times_that_cannot_be_are_handed_on_as_they_are(protocol: str, value: int) -> None:
    with running(protocol, Fake(times={"queue_ns": value})) as (_, runner):
        infer(runner)

        assert runner.details_ns == (value, 0, 0)


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_slow_server_is_given_up_in_time_and_left_alone_for_as_long(protocol: str) -> None:
    fake = Fake(late_s=60)
    with running(protocol, fake, timeout_s=1.0) as (_, runner):
        begin = time.monotonic()
        with pytest.raises(Late, match="no answer within 1 s"):
            infer(runner)
        with pytest.raises(Late, match="not asked again"):
            infer(runner)

        assert time.monotonic() - begin < LIMIT_S
        assert fake.asked <= 1


def silence(connection: socket.socket) -> None:
    time.sleep(60)


OK = b"HTTP/1.1 200 OK\r\n"
FAULTS: dict[str, tuple[Callable[[socket.socket], None], type[Exception]]] = {
    "reset": (reset, Unreachable),
    "closed": (sending(b""), Unreachable),
    "half a head": (sending(OK + b"Content-Le"), Rejected),
    "half a body": (sending(OK + b"Content-Length: 1000\r\n\r\n{"), Unreachable),
    "half a chunk": (sending(OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{"), Unreachable),
    "noise": (sending(np.random.default_rng(1).bytes(1000)), Unreachable),
    "no number of bytes": (sending(OK + b"Content-Length: many\r\n\r\n{}"), Rejected),
    "silence": (silence, Late),
    "a head in drips": (sending(OK, *[b"A: a\r\n"] * 600, every_s=0.1), Late),
    "a line in drips": (sending(OK + b"A: ", *[b"a"] * 600, every_s=0.1), Late),
    "a body in drips": (sending(OK + b"Content-Length: 600\r\n\r\n", *[b" "] * 600, every_s=0.1), Late),
    "chunks in drips": (sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 600, every_s=0.1), Late),
    "a chunk's length in drips": (
        sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", *[b"0"] * 600, every_s=0.1),
        Late,
    ),
    "no content": (sending(b"HTTP/1.1 204 None\r\n\r\n"), Rejected),
    "a no": (sending(b'HTTP/1.1 503 Busy\r\nContent-Length: 20\r\n\r\n{"error": "the\\ncap"}'), Rejected),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_broken_answer_over_http_is_named_and_the_request_sent_once(what: str) -> None:
    fault, kind = FAULTS[what]
    fake = Fake()
    with running("http", fake, timeout_s=1.0) as (_, runner):
        infer(runner)
        fake.fault = fault
        begin = time.monotonic()
        with pytest.raises(kind) as raised:
            infer(runner)
        assert time.monotonic() - begin < LIMIT_S
        fake.fault = None

        assert "http://127.0.0.1" in str(raised.value) and "\n" not in str(raised.value)
        assert fake.asked == 2
        if kind is not Late:
            assert fake.ended.wait(LIMIT_S)
            np.testing.assert_allclose(infer(runner), scores(ROWS), rtol=1e-5)


def answer(content: Any, tail: bytes = b"", length: int | None = None) -> bytes:
    head = content if isinstance(content, bytes) else json.dumps(content).encode()
    told = f"Inference-Header-Content-Length: {len(head) if length is None else length}\r\n"
    return OK + f"{told}Content-Length: {len(head) + len(tail)}\r\n\r\n".encode() + head + tail


def output(**other: Any) -> dict[str, Any]:
    own = {"name": "scores", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
    return {"outputs": [{**own, **other}]}


@pytest.mark.parametrize(
    "sent",
    [
        answer(b"\xff\xfe"),
        answer(b"[" * 100_000),
        answer([]),
        answer({"outputs": 5}),
        answer({"outputs": ["scores"]}),
        answer(output(), bytes(15)),
        answer(output(), bytes(17)),
        answer(output(), bytes(16), 5),
        answer(output(), bytes(16), -5),
        answer(output(), bytes(16), 10**6),
        answer(output(shape=[2**40, 2**40]), bytes(16)),
        answer(output(shape=[-2, -2]), bytes(16)),
        answer(output(shape="22"), bytes(16)),
        answer(output(shape=[2.0, 2.0]), bytes(16)),
        answer(output(datatype="FP99"), bytes(16)),
        answer(output(datatype="BYTES", shape=[2**31, 2]), bytes(16)),
        answer(output(parameters={"binary_data_size": -16}), bytes(16)),
        answer(output(parameters={"binary_data_size": "16"}), bytes(16)),
        answer(output(parameters=[16]), bytes(16)),
        answer(output(parameters={}, data=[10**400] * 4)),
        answer(output(parameters={}, data=["a"] * 4)),
        answer(output(parameters={}, data=[1, 2, 3])),
        answer({**output(), "parameters": ["queue_ns"]}, bytes(16)),
    ],
)
def test_garbage_within_an_answer_is_named(sent: bytes) -> None:
    fake = Fake(fault=sending(sent))
    with running("http", fake) as (_, runner), pytest.raises(Rejected, match="cannot be read"):
        infer(runner)


@pytest.mark.parametrize(
    "metadata",
    [
        {"inputs": []},
        {"inputs": [{"name": "images"}], "outputs": []},
        {"inputs": 5, "outputs": 5},
        {"inputs": [{"name": "images", "datatype": "FP32", "shape": "x"}], "outputs": []},
        {"inputs": [], "outputs": [], "versions": 5},
    ],
    ids=str,
)
def test_metadata_that_is_none_is_named(metadata: Any) -> None:
    with over_http(Fake(metadata=metadata)) as url, pytest.raises(ValueError, match=r"open inference protocol\?"):
        loaded(url)


def test_a_configuration_that_is_none_is_named() -> None:
    with over_http(Fake(config={"parameters": [1]})) as url, pytest.raises(ValueError, match="open inference protocol"):
        loaded(url)


@pytest.mark.parametrize("protocol", SERVERS)
def test_what_the_server_has_not_is_told_before_anything_is_asked(protocol: str) -> None:
    with SERVERS[protocol](Fake()) as url, pytest.raises(ValueError, match=r"no model large.*backend_options.model"):
        loaded(url, "large")
    with SERVERS[protocol](Fake(versions=("1", "2"))) as url:
        with pytest.raises(ValueError, match="versions 1, 2 of small; name one"):
            loaded(url)
        loaded(url, version="1").close()
    with SERVERS[protocol](Fake(is_ready=False)) as url, pytest.raises(DeviceNotFound, match="not ready"):
        loaded(url)


@pytest.mark.parametrize("name", ["a b", "a/b", "a?b", "a\nb", "ä"])
def test_a_models_name_may_have_any_characters(name: str) -> None:
    with over_http(Fake()) as url, pytest.raises(ValueError, match="the server has no model"):
        loaded(url, name)


@pytest.mark.parametrize("scheme", ["grpc", "http", "grpcs", "https"])
def test_nobody_there(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(DeviceNotFound, match=r"no server answers.*is it started"):
        loaded(f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["grpc", "http", "grpcs", "https"])
@pytest.mark.parametrize("sent", [b"", b"220 mail at your service\r\n"], ids=["silence", "mail"])
def test_somebody_else_there(scheme: str, sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            held = []
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                held.append(connection)
                connection.sendall(sent)

        threading.Thread(target=serve, daemon=True).start()
        begin = time.monotonic()
        with pytest.raises((DeviceNotFound, ValueError)):
            loaded(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}", timeout_s=1.0)
        listening.shutdown(socket.SHUT_RDWR)

    assert time.monotonic() - begin < LIMIT_S


def test_a_connection_that_the_server_ended_meanwhile_is_made_anew_before_anything_is_sent() -> None:
    fake = Fake(fault=sending(answer({"outputs": []})))
    with running("http", fake) as (_, runner):
        with pytest.raises(Rejected):  # read as a whole, then the server ends the connection
            infer(runner)
        fake.fault = None
        assert fake.ended.wait(LIMIT_S)

        np.testing.assert_allclose(infer(runner), scores(ROWS), rtol=1e-5)
        assert fake.asked == 2


def test_a_server_that_ends_is_named_at_once() -> None:
    fake = Fake()
    with ExitStack() as stack:
        with over_grpc(fake) as url:
            runner = stack.enter_context(stack.enter_context(loaded(url)).runner())
            infer(runner)
        for _ in range(3):
            with pytest.raises(Unreachable):
                infer(runner)

    assert fake.asked == 1


@pytest.mark.parametrize("text", ["", "no certificate"])
def test_a_certificate_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.pem").write_text(text)

    for scheme in ("https", "grpcs"):
        with pytest.raises(ValueError, match=r"own\.pem"):
            loaded(f"{scheme}://127.0.0.1:1", certificate=str(tmp_path / "own.pem"))


def test_heads_of_requests_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.kserve_grpc._MOST_HEADS", 3)
    with running("grpc", Fake()) as (_, runner):
        for n in (1, 2, 3, 4, 5, 1):
            rows = np.repeat(ROWS[:1], n, 0)
            np.testing.assert_allclose(infer(runner, rows), scores(rows), rtol=1e-5)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("grpc://a:8001", Endpoint("grpc", "a", 8001, 1.0)),
        ("https://[::1]:8000/", Endpoint("https", "::1", 8000, 1.0)),
        ("http://127.0.0.1:65535", Endpoint("http", "127.0.0.1", 65535, 1.0)),
    ],
)
def test_endpoints(url: str, expected: Endpoint) -> None:
    found = endpoint_of(url, 1.0, None)

    assert found == expected and is_url(url)
    assert endpoint_of(found.url, 1.0, None) == found


@pytest.mark.parametrize(
    "url",
    [
        *("grpc://a", "grpc://:8001", "http://a:0", "http://a:65536", "http://a:b", "ftp://a:1", "http://a:1/v2"),
        *("a:8001", "http://me:secret@a:1", "http://a:1?b", "http://a:1#b", "grpc://[::1:1", "", "://"),
    ],
)
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        endpoint_of(url, 1.0, None)
