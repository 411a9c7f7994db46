"""What a server costs, and how far servers scale: the backend kserve and sut serve, on loopback.

python benchmarks/serving.py [--parts round,rate,connections,scale] [--pairs 7] [--write-docs]

round: a tensor of 602 kB to sut serve and back at zero load, beside tritonclient's own smallest loop. rate: the same
model in LoadGen's process and behind a server, many requests in flight: samples/s, and CPU time a sample of client and
server together. connections: 4,000 at once, with a cap and without. scale: one to eight servers whose devices only take
time, then devices so fast that the machine is what limits. Exit code: 0 measured, whatever came out; 1 wrong usage; 3 a
side could not be run.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backends.base import ModelFile, Slot
from backends.kserve import KServe
from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish, spread, table
from benchmarks.overhead_sides import MeasurementError, environment, measured
from sut.process.cpu import cpu_ns_of

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "scale.md"
SUT = [sys.executable, "-P", "-m", "sut"]
MODEL = "efficientnet-lite0"
IDLE = ["--backend", "simulated", "--set", "backend_options.a_ms=0", "--set", "backend_options.b_ms=0"]
BATCH = ["--max-batchsize", "4"]
PIPELINE = ["--lanes", "2", "--threads", "1", *BATCH]
PARTS = ("round", "rate", "connections", "scale")
LIMIT_S = 120.0
ROUNDS = 100
CONNECTIONS, CAP = 4000, 1000
JPEG = ["--boundary", "jpeg"]
PREPROCESSING = ("decode", "resize", "normalize")
MOST_SERVERS = {10.0: 8, 2.0: 4, 0.0: 1}
"""How many servers there are whose devices take so many ms a sample: one of 10 ms does 100 a second."""
ASKED_AT_ONCE = ((10.0, 1), (10.0, 2), (10.0, 4), (10.0, 8), (2.0, 4), (0.0, 1))


@dataclass(frozen=True, slots=True)
class Server:
    """A ``sut serve`` of its own."""

    process: subprocess.Popen[str]
    http: str
    grpc: str

    @property
    def cpu_s(self) -> float:
        """CPU time that it has spent."""
        return cpu_ns_of(self.process.pid) / 1e9

    def metric(self, name: str) -> float:
        """A number of its /metrics, summed over labels."""
        with urllib.request.urlopen(f"{self.http}/metrics", timeout=LIMIT_S) as answer:
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@contextmanager
def server(*options: str) -> Iterator[Server]:
    """One with these options, on ports that are free."""
    command = [*SUT, "serve", *options, "--http-port", "0", "--grpc-port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment())
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise MeasurementError(f"sut serve {' '.join(options)} ended with {process.wait(LIMIT_S)}")
        [row] = json.loads(line)["rows"]
        yield Server(process, row["http"], row["grpc"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)


def asked_of(servers: Sequence[Server], *options: str) -> tuple[dict[str, Any], float]:
    """The row of a run that asks these by gRPC, and the CPU time in ms that a sample took them."""

    def spent() -> tuple[float, float]:
        return sum(each.cpu_s for each in servers), sum(each.metric("sut_samples_total") for each in servers)

    before = spent()
    row = ran("--backend", "kserve", "--device", ",".join(each.grpc for each in servers), *options)
    cpu_s, samples = (after - earlier for after, earlier in zip(spent(), before, strict=True))
    return row, 1e3 * cpu_s / samples


def ran(*options: str) -> dict[str, Any]:
    """The row of an Offline run of some seconds."""
    with tempfile.TemporaryDirectory(prefix="serving-") as output:
        command = [*SUT, "run", "--scenario", "Offline", "--time", "4", "--json", "--output", output, *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=LIMIT_S)
    if done.returncode not in (0, 4):
        raise MeasurementError(f"sut run {' '.join(options)}: {done.stderr.strip().splitlines()[-1:]}")
    [row] = json.loads(done.stdout)["rows"]
    return dict(row)


Ask = Callable[[], object]


def ours(url: str, tensor: np.ndarray[Any, Any]) -> Ask:
    """A request as a lane makes it."""
    runner = KServe.load(ModelFile(None, sample_shape=tensor.shape[1:], name=MODEL), url, 1, 1).runner()
    return lambda: runner.infer(Slot(1, {"images": tensor}))


def theirs(protocol: str, url: str, tensor: np.ndarray[Any, Any]) -> Ask:
    """The same with tritonclient alone."""
    import tritonclient.grpc
    import tritonclient.http

    client = {"grpc": tritonclient.grpc, "http": tritonclient.http}[protocol]
    connection = client.InferenceServerClient(url.partition("://")[2])
    wanted = [client.InferRequestedOutput("label")]

    def ask() -> object:
        given = client.InferInput("images", list(tensor.shape), "FP32")
        given.set_data_from_numpy(tensor)
        return connection.infer(MODEL, [given], outputs=wanted).as_numpy("label")

    return ask


def round_trips(pairs: int) -> list[str]:
    """Medians of round trips, the sides by turns."""
    tensor = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    figures = []
    with server(*IDLE) as one:
        for protocol, url in (("grpc", one.grpc), ("http", one.http)):
            figure = Figure(f"{protocol}, 602 kB and back", "us", Target("ratio", "at most", 1.25))
            sides = {"ours": ours(url, tensor), "bare": theirs(protocol, url, tensor)}
            for pair in range(pairs + 1):
                for name in sorted(sides, reverse=bool(pair % 2)):
                    took = _median_us(sides[name])
                    if pair:  # the first warms up
                        getattr(figure, name).append(took)
            figures.append(figure)
    return figures_table(figures)


def _median_us(ask: Ask) -> float:
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter_ns()
        ask()
        took.append(time.perf_counter_ns() - begin)
    return statistics.median(took) / 1e3


def rates(pairs: int) -> list[str]:
    """In process against behind a server."""
    wires = {
        "float32 tensors": ([], [], 0.6),
        "uint8 tensors": (["--fold"], ["--fold"], 0.8),
        "JPEG": (JPEG, [*JPEG, "--preprocess", "server"], 0.8),
    }
    figures, shares = [], []
    for name, (system, client, floor) in wires.items():
        rate = Figure(f"{name}: samples/s behind the server", "samples/s", Target("ratio", "at least", floor))
        cpu = Figure(f"{name}: CPU time a sample", "ms", Target("ratio", "at most", 1 / floor))
        parts: list[tuple[float, float]] = []
        with server(*PIPELINE, *system) as one:
            for pair in range(pairs):
                for side in ("bare", "ours") if pair % 2 else ("ours", "bare"):
                    if side == "bare":
                        row = ran(*PIPELINE, *system)
                        spent = 0.0
                    else:
                        row, spent = asked_of([one], "--lanes", "4", *BATCH, *client)
                        parts.append((1e3 * row["cpu_seconds_per_sample"], spent))
                    getattr(rate, side).append(row["samples_per_second"])
                    getattr(cpu, side).append(1e3 * row["cpu_seconds_per_sample"] + spent)
        figures += [rate, cpu]
        shares.append([name, *(spread(values) for values in zip(*parts, strict=True))])
    return [*figures_table(figures), "", *table(("CPU ms a sample", "client", "server"), shares)]


def connections() -> list[str]:
    """All open at once, each with a request of its own, at a server that refuses beyond a cap and one that need not."""
    rows = []
    for cap in (4096, CAP):
        with server(*IDLE, "--max-batchsize", "64", "--max-inflight", str(cap)) as one:
            begin = time.monotonic()
            found = asyncio.run(_asked_at_once(one.http))
            took = time.monotonic() - begin
            counted = one.metric("sut_requests_total")
        lost = CONNECTIONS - found["200"] - found["503"]
        rows.append([f"{cap:,}", *(f"{n:,}" for n in (found["200"], found["503"], lost, int(counted))), f"{took:.1f}"])
    return table(("cap", "answered", "refused", "lost", "counted by the server", "seconds"), rows)


async def _asked_at_once(url: str) -> Counter[str]:
    """The status of each connection's request, or what became of it."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "images",
                    "datatype": "FP32",
                    "shape": [1, 3, 224, 224],
                    "parameters": {"binary_data_size": 602112},
                }
            ]
        }
    ).encode()
    request = b"".join(
        [
            f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: {host}\r\n".encode(),
            f"Inference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(head) + 602112}\r\n\r\n".encode(),
            head,
            bytes(602112),
        ]
    )
    opened, start = asyncio.Semaphore(0), asyncio.Event()

    async def one() -> str:
        reader, writer = await asyncio.open_connection(host, int(port))
        opened.release()
        await start.wait()
        try:
            writer.write(request)
            line = await asyncio.wait_for(reader.readline(), LIMIT_S)
            return line.split()[1].decode() if line else "closed"
        except (OSError, TimeoutError) as error:
            return type(error).__name__
        finally:
            writer.close()

    tasks = [asyncio.create_task(one()) for _ in range(CONNECTIONS)]
    for _ in tasks:
        await asyncio.wait_for(opened.acquire(), LIMIT_S)
    start.set()
    return Counter(await asyncio.gather(*tasks))


def scaling(rounds: int) -> list[str]:
    """One to eight servers with devices that only take time, by turns; then devices that take less, and none."""
    light = ["--preprocess", "simulated", *(f"--set=preprocess_options.{stage}_ms=0" for stage in PREPROCESSING)]
    serving = [*light, *JPEG, *PIPELINE, "--backend", "simulated", "--set", "backend_options.a_ms=0"]
    client = [*JPEG, "--preprocess", "server", *BATCH]
    found: dict[tuple[float, int], list[tuple[float, float, float]]] = {}
    with ExitStack() as stack:
        some = {
            ms: [stack.enter_context(server(*serving, "--set", f"backend_options.b_ms={ms}")) for _ in range(number)]
            for ms, number in MOST_SERVERS.items()
        }
        for _ in range(rounds):
            for ms, number in ASKED_AT_ONCE:
                row, spent = asked_of(some[ms][:number], "--lanes", str(2 * number), *client)
                figures = row["samples_per_second"], 1e3 * row["cpu_seconds_per_sample"], spent
                found.setdefault((ms, number), []).append(figures)
    rows = []
    for (ms, number), measured_at in found.items():
        rates, *cpu = zip(*measured_at, strict=True)
        planted = number * 1e3 / ms if ms else None
        share = f"{statistics.median(rates) / planted:.0%}" if planted else "-"
        busy = statistics.median(rate * (mine + theirs) / 1e3 for rate, mine, theirs in measured_at)
        told = f"{number} x {ms:g} ms a sample" if ms else "1 that waits for nothing"
        rows.append([told, spread(rates), share, *map(spread, cpu), f"{busy:.1f}"])
    head = ("servers", "samples/s", "of what was planted", "client's CPU ms a sample", "servers'", "cores busy")
    return table(head, rows)


def main() -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma list of {', '.join(PARTS)} (all)")
    parser.add_argument("--pairs", type=int, default=7, help="pairs, or rounds, of each (7)")
    parser.add_argument("--write-docs", action="store_true", help="write what was measured into docs/scale.md")
    given = parser.parse_args()
    parts: Sequence[str] = given.parts.split(",")
    if unknown := set(parts).difference(PARTS):
        parser.error(f"unknown part {unknown.pop()}; there are {', '.join(PARTS)}")
    told: dict[str, tuple[str, Callable[[], list[str]]]] = {
        "round": ("A request's way", lambda: round_trips(given.pairs)),
        "rate": ("Many in flight", lambda: rates(given.pairs)),
        "connections": ("4,000 connections", connections),
        "scale": ("Several servers", lambda: scaling(given.pairs)),
    }
    try:
        for part in parts:
            before = os.getloadavg()[0]
            heading, measure = told[part]
            body = [measured(command_line(sys.argv), before), "", *measure()]
            publish(body, part if given.write_docs else None, heading, DOCUMENT)
    except MeasurementError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
