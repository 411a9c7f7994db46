"""``sut serve`` before it serves: addresses, certificates, and what it listens on."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as tc_grpc

from tests.children import Finished, run, variables
from tests.serving import SIMULATED, serve_line, served

_LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 as the kernel has it, and as an address of IPv6."""


def refused(folder: Path, *options: str | Path) -> Finished:
    return run(*serve_line(*SIMULATED, *options), cwd=folder, environment=variables())


def certificate(folder: Path) -> tuple[Path, Path]:
    """One for this machine, signed by itself, and its key."""
    made = folder / "own.pem", folder / "own.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=sut"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", made[0], "-keyout", made[1]),
        ],
        check=True,
        capture_output=True,
    )
    return made


@pytest.mark.parametrize("which", ["--http-port", "--grpc-port"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = refused(tmp_path, which, port)

    assert done.code == 1 and done.out == ""
    assert port in done.error and which in done.error and "add_port" not in done.err


@pytest.mark.first(1)
@pytest.mark.parametrize("host", ["no.such.host.invalid", "", "300.1.2.3", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_named(tmp_path: Path, host: str) -> None:
    done = refused(tmp_path, "--host", host)

    assert done.code == 1 and done.out == ""
    assert f"cannot listen on {host}" in done.error


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--backend", "kserve", "--device", "grpc://127.0.0.1:1"), 2, "no server answers: grpc://127.0.0.1:1"),
        (("--max-request-mb", "5000"), 1, "--max-request-mb"),  # more than a message of gRPC may have
        (("--max-request-mb", "inf"), 1, "--max-request-mb"),
    ],
)
def test_what_cannot_be_served_is_told_by_its_code(
    tmp_path: Path, options: tuple[str, ...], code: int, told: str
) -> None:
    done = refused(tmp_path, *options)

    assert done.code == code and done.out == ""
    assert told in done.error


@pytest.mark.slow
def test_tls_needs_two_files_that_are_what_they_should_be(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = certificate(tmp_path / "other")
    (tmp_path / "none.pem").write_text("no certificate")
    wrong = {
        ("--certificate", pem): "go together",
        ("--key", key): "go together",
        ("--certificate", pem, "--key", tmp_path / "gone.key"): "no such file",
        ("--certificate", tmp_path / "none.pem", "--key", key): "expected PEM files",
        ("--certificate", pem, "--key", other): "expected PEM files",
    }
    for options, told in wrong.items():
        done = refused(tmp_path, *options)

        assert done.code == 1 and done.out == "", options
        assert told in done.error


def test_over_tls_clients_that_trust_it_are_served(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    with served(tmp_path, *SIMULATED, "--certificate", pem, "--key", key) as server:
        assert server.http.startswith("https://") and server.grpc.startswith("grpcs://")
        line = ["curl", "--silent", "--fail", f"{server.http}/v2/health/ready"]
        trusting = subprocess.run([*line, "--cacert", pem], capture_output=True, timeout=60)
        stranger = subprocess.run(line, capture_output=True, timeout=60)
        with socket.create_connection(server.http_address) as connection, pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(connection, server_hostname="127.0.0.1")
        plain = subprocess.run(["curl", "--silent", server.http.replace("https", "http")], timeout=60)
        with tc_grpc.InferenceServerClient(server.grpc_target, ssl=True, root_certificates=str(pem)) as client:
            live = client.is_server_live()
        with grpc.insecure_channel(server.grpc_target) as channel, pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(1)

    assert trusting.returncode == 0 and live
    assert stranger.returncode == 60  # of curl: whom it does not know
    assert plain.returncode != 0


def test_it_listens_on_this_machine_alone(tmp_path: Path) -> None:
    with served(tmp_path, *SIMULATED) as server:
        listening = addresses_of(server.running.process.pid)

    assert len(listening) == 2
    assert {address for address, _ in listening} <= _LOOPBACK


def addresses_of(process: int) -> set[tuple[str, str]]:
    """Address and port of all sockets that a process listens on."""
    own = {link.readlink().name for link in Path(f"/proc/{process}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in own:
                address, _, port = words[1].partition(":")
                found.add((address, port))
    return found
