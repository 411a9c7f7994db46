"""Several processes that one thread owns: ready together, ended together, and missed at once when one is gone."""

from __future__ import annotations

import os
import queue
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from sut.errors import RunError, SetupError
from sut.process import workers
from sut.process.messages import Failed, vocabulary
from sut.process.workers import Ready, Workers


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker tells of itself."""

    word: str
    event: Literal["said"] = "said"


KINDS: Any = vocabulary(Ready | Said | Failed)

OBEDIENT = """
import json, os, sys
orders = json.loads(sys.argv[1])
tell = lambda **event: os.write(int(sys.argv[2]), json.dumps(event).encode() + b"\\n")
tell(event="ready")
while os.read(orders["wait"], 1):
    pass
tell(event="said", word=orders["word"])
"""


class Team:
    """Workers of a module, with a pipe that they wait at."""

    def __init__(self, module: str, count: int = 2) -> None:
        self.wait, self._go = os.pipe()
        self.lost: queue.Queue[str] = queue.Queue()
        self.heard: list[Said] = []
        orders = [{"word": f"goodbye from {number}", "wait": self.wait} for number in range(count)]
        self.workers = Workers("team", module, orders, [self.wait], KINDS, self.lost.put, self.heard.append)

    def tell(self) -> None:
        os.close(self._go)

    def end(self) -> None:
        self.workers.end(self.tell)
        os.close(self.wait)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be spawned."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "obedient.py").write_text(OBEDIENT)
    return tmp_path


def are_gone(processes: list[int]) -> bool:
    return not any(Path(f"/proc/{number}").exists() for number in processes)


def test_they_work_until_they_are_told_and_their_last_words_are_heard(modules: Path) -> None:
    team = Team("obedient")
    team.workers.start()
    there = dict(team.workers.processes)

    team.end()

    assert list(there) == ["team-0", "team-1"]
    assert sorted(said.word for said in team.heard) == ["goodbye from 0", "goodbye from 1"]
    assert are_gone([*there.values()]) and team.lost.empty()


@pytest.mark.parametrize(
    ("does", "error", "said"),
    [
        ("sys.exit(7)", RunError, "team-0: its process ended with exit code 7; it said: noise"),
        ("os.kill(os.getpid(), 9)", RunError, "team-0: its process was killed by SIGKILL; it said: noise"),
        (
            """os.write(int(sys.argv[2]), b'{"event": "failed", "code": 2, "message": "no such device"}\\n')""",
            SetupError,
            "team-0: no such device",
        ),
    ],
)
def test_one_that_cannot_begin_ends_all(modules: Path, does: str, error: type[Exception], said: str) -> None:
    (modules / "bad.py").write_text(f"import os, sys\nprint('noise', flush=True)\n{does}\n")
    team = Team("bad", count=1)

    with pytest.raises(error) as failed:
        team.workers.start()

    assert str(failed.value) == said
    team.end()


def test_one_that_never_becomes_ready_is_given_up(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "READY_S", 0.1)
    (modules / "sleeps.py").write_text("import time\ntime.sleep(600)\n")
    team = Team("sleeps")

    with pytest.raises(RunError, match=r"team-0 was not ready after 0 s"):
        team.workers.start()

    team.end()


def test_one_that_is_killed_is_named_and_the_others_go_with_it(modules: Path) -> None:
    team = Team("obedient", count=3)
    team.workers.start()
    there = dict(team.workers.processes)

    os.kill(there["team-1"], signal.SIGKILL)

    assert team.lost.get(timeout=60) == "team-1: its process was killed by SIGKILL; it said: nothing"
    assert are_gone([*there.values()])
    team.end()
    assert team.heard == []


def test_one_that_tells_nonsense_is_given_up(modules: Path) -> None:
    (modules / "babbles.py").write_text(OBEDIENT + "os.write(int(sys.argv[2]), b'what?\\n'); os.read(0, 1)\n")
    team = Team("babbles", count=1)
    team.workers.start()

    team.tell()

    assert "not a line of JSON: b'what?'" in team.lost.get(timeout=60)
    os.close(team.wait)


def test_one_that_does_not_end_when_it_is_told_is_ended(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_GOODBYE_S", 0.1)
    (modules / "stays.py").write_text(OBEDIENT + "import time\ntime.sleep(600)\n")
    team = Team("stays")
    team.workers.start()
    there = dict(team.workers.processes)

    team.end()

    assert are_gone([*there.values()]) and team.lost.empty()
