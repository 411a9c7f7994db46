"""A real Ray cluster for tests, each of its nodes with processes of its own, on loopback: that of the docs' example."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.children import CHECKOUT, Running, python_started

EXAMPLE = CHECKOUT / "docs" / "examples" / "ray_nodes.py"


@dataclass(frozen=True, slots=True)
class Nodes:
    """Its processes, its head's address, and the process that each node lives by."""

    running: Running
    address: str
    raylets: dict[str, int]

    def actors(self) -> list[int]:
        """Processes of the actors of this project that live, on whichever node."""
        names = ("ray::Infer", "ray::Prepare")
        return [pid for pid, line in self.running.processes().items() if line.startswith(names)]

    def lose(self, node: str) -> None:
        """End a node with all its actors, as a machine does that fails."""
        raylet = self.raylets[node]
        for pid in (raylet, *children(raylet)):
            os.kill(pid, signal.SIGKILL)

    def lose_head(self) -> None:
        """End what knows all nodes, and no node."""
        own = children(self.running.process.pid)
        [head] = [pid for pid in own if Path(f"/proc/{pid}/comm").read_text() == "gcs_server\n"]
        os.kill(head, signal.SIGKILL)


@contextmanager
def ray_nodes(folder: Path, number: int, plugins: Path | None = None) -> Iterator[Nodes]:
    """A cluster of so many nodes, the first being the head, whose actors can import ``plugins``."""
    lines = folder / "nodes.txt"
    start = f"import runpy, sys; sys.stdout = open({str(lines)!r}, 'w'); sys.argv[1:] = ['{number}']; "
    start += f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    with python_started("-c", start, cwd=folder, plugins=plugins) as running:
        running.wait_until(lambda: lines.exists() and lines.read_text().count("\n") > number)
        *nodes, address = lines.read_text().split("\n")[:-1]
        yield Nodes(running, address, {name: int(pid) for name, _, pid in (line.partition(" ") for line in nodes)})
        running.signal(signal.SIGTERM)
        running.finish(60)


def children(pid: int) -> list[int]:
    """Processes that a process has started itself."""
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
