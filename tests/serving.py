"""``sut serve`` in a process of its own, on free ports of this machine, and what it says of itself."""

from __future__ import annotations

import json
import re
import select
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.children import LIMIT_S, Running, started, variables
from tests.unit.small_models import RECIPE_FILE, write_classifier

_METRIC = re.compile(r"^(sut_\w+(?:{[^}]*})?) (\S+)$", re.MULTILINE)
SIMULATED = ("--backend", "simulated", "--preprocess", "simulated")
"""Options of a server without a model."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that listens. ``http`` and ``grpc`` are its URLs."""

    running: Running
    http: str
    grpc: str
    model: str

    @property
    def http_address(self) -> tuple[str, int]:
        host, _, port = self.http.rpartition("/")[2].rpartition(":")
        return host, int(port)

    @property
    def grpc_target(self) -> str:
        return self.grpc.rpartition("/")[2]

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of what is there."""
        try:
            with urllib.request.urlopen(self.http + path, timeout=LIMIT_S) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def json(self, path: str) -> Any:
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)

    def metrics(self) -> dict[str, float]:
        """What it has counted, by name with labels."""
        return {name: float(value) for name, value in _METRIC.findall(self.get("/metrics")[1].decode())}

    def requests(self, protocol: str) -> dict[str, int]:
        """How many requests became what."""
        found = re.compile(rf'sut_requests_total{{outcome="(\w+)",protocol="{protocol}"}}')
        return {named[1]: int(value) for name, value in self.metrics().items() if (named := found.fullmatch(name))}


def serve_line(*options: str | Path) -> list[str | Path]:
    """The command that serves on free ports."""
    ports = ("--http-port", "0", "--grpc-port", "0", "--json")
    return [sys.executable, "-P", "-m", "sut", "serve", *ports, *options]


@contextmanager
def served(folder: Path, *options: str | Path, line: Sequence[str | Path] = ()) -> Iterator[Server]:
    """A server that has begun to listen; whatever is left of it afterwards is killed. ``line``: its whole command."""
    with started(line or serve_line(*options), folder, variables()) as running:
        stdout = running.process.stdout
        assert stdout is not None
        assert select.select([stdout], [], [], LIMIT_S)[0], "says nothing"
        line = stdout.readline()
        assert line, running.finish()
        [row] = json.loads(line)["rows"]
        yield Server(running, row["http"], row["grpc"], row["model"])


def small_model(folder: Path, **kind: Any) -> tuple[str | Path, ...]:
    """Options that serve a small classifier, made in a folder; ``kind`` as for ``write_classifier``."""
    write_classifier(folder / "small.onnx", **kind)
    (folder / "recipe.yaml").write_text(RECIPE_FILE)
    return ("--model", folder / "small.onnx", "--recipe", folder / "recipe.yaml", "--backend", "onnxruntime")
