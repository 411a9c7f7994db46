"""Processes of the project's own: what they inherit, what they tell, and that nothing of them is left."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from pydantic import TypeAdapter

from sut.errors import ExitCode, RunError
from sut.process.child import Child, Log, end_of, environment, events, follow, spawn
from sut.process.messages import STEPS, Failed, Step, to_line, vocabulary
from tests.children import CHECKOUT


def test_the_checkout_is_the_first_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere:{CHECKOUT}")
    assert environment()["PYTHONPATH"] == f"{CHECKOUT}:/elsewhere"

    monkeypatch.delenv("PYTHONPATH")
    assert environment()["PYTHONPATH"] == str(CHECKOUT)


@dataclass(frozen=True, slots=True)
class Said:
    """What the modules in here tell of themselves."""

    pid: int
    words: tuple[str, ...] = ()
    event: Literal["said"] = "said"


SAID: TypeAdapter[Step | Said] = vocabulary(Step | Said)
ENDED: TypeAdapter[Step | Said | Failed] = vocabulary(Step | Said | Failed)


def step(done: int) -> bytes:
    return to_line(Step(done, 9))


def test_lines_are_whole_however_they_arrive() -> None:
    whole = step(1) + step(2) + step(3)

    told = list(events([whole[:50], b"", whole[50:-1]], STEPS, 5.0, "testing"))

    assert told == [Step(1, 9), Step(2, 9)]


@pytest.mark.parametrize("line", [b"noise", b'{"event": "leap"}'])
def test_what_is_no_event_is_named(line: bytes) -> None:
    told = events([step(1), line + b"\n"], STEPS, 5.0, "testing")

    assert next(told) == Step(1, 9)
    with pytest.raises(RunError, match=r"testing failed: its process told what is not .*: b'.{0,80}'$"):
        next(told)


def test_a_line_without_an_end_is_given_up() -> None:
    with pytest.raises(RunError, match="not a line of JSON: b'xxx"):
        list(events(itertools.repeat(b"x" * 2**20), STEPS, 5.0, "testing"))


def test_of_what_is_printed_for_ever_the_first_and_the_last_is_kept() -> None:
    with tempfile.TemporaryFile() as file:
        log = Log(file)
        os.write(file.fileno(), b"the first\n")
        for _ in range(5):
            os.write(file.fileno(), b"babble\n" * 2**18)
            log.cut()
        os.write(file.fileno(), b"the last\n")
        log.cut()

        content = os.pread(file.fileno(), 2**22, 0)
        last = log.end()

    assert len(content) < 2**20
    assert content.startswith(b"the first\nbabble\n")
    assert content.endswith(b"babble\nthe last\n")
    assert content.count(b"[... about ") == 1
    assert b"\n[... about 8.3 MiB left out ...]\n" in content
    assert last.endswith("babble the last")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be spawned."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_module_gets_its_orders_its_variables_and_its_descriptors(modules: Path) -> None:
    (modules / "says.py").write_text(
        "import json, os, sys\n"
        "print('noise', flush=True)\n"
        "orders = json.loads(sys.argv[1])\n"
        "words = [orders['word'], os.read(orders['more'], 9).decode(), os.environ['OF_ITS_OWN']]\n"
        "told = {'event': 'said', 'pid': os.getpid(), 'words': words}\n"
        "os.write(int(sys.argv[2]), json.dumps(told).encode() + b'\\n')\n"
    )
    more, write = os.pipe()
    os.write(write, b"inherited")
    with tempfile.TemporaryFile() as file:
        log = Log(file)
        with spawn("says", {"word": "given", "more": more}, log, [more], {"OF_ITS_OWN": "1"}) as child:
            told = list(events(child.chunks(), SAID, 60.0, "testing"))
            code = child.wait(60)
        assert told == [Said(child.process.pid, ("given", "inherited", "1"))]
        assert code == 0
        assert end_of(code, log) == "its process ended with exit code 0; it said: noise"
    os.close(more)
    os.close(write)


def files_and_pipes() -> list[str]:
    """What this process has open, but for what threads of libraries that other tests have loaded open meanwhile."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the folder itself
            links.append(str(descriptor.readlink()))
    return sorted(link for link in links if not link.startswith(("socket:", "anon_inode:", "/proc/")))


def test_it_is_gone_when_the_block_is_left(modules: Path) -> None:
    (modules / "waits.py").write_text("import os, sys, time\nos.write(int(sys.argv[2]), b' ')\ntime.sleep(600)\n")
    gc.collect()  # what earlier tests left open
    open_before = files_and_pipes()
    with tempfile.TemporaryFile() as file:
        log = Log(file)
        with pytest.raises(KeyboardInterrupt), spawn("waits", None, log) as child:
            assert b" " in child.chunks()
            assert os.getsid(child.process.pid) == child.process.pid
            raise KeyboardInterrupt
        assert end_of(child.process.returncode, log) == "its process was killed by SIGKILL; it said: nothing"
    assert files_and_pipes() == open_before


@pytest.mark.parametrize("last", [Said(7), Failed(ExitCode.SETUP, "no such device")])
def test_its_steps_are_passed_on_and_its_last_word_is_what_came_of_it(modules: Path, last: Said | Failed) -> None:
    heard: list[tuple[int, int]] = []
    words = (to_line(Step(1, 9)), to_line(last))
    code = 2 if isinstance(last, Failed) else 0
    (modules / "does.py").write_text(f"import os, sys\nos.writev(int(sys.argv[2]), {words})\nsys.exit({code})\n")

    assert follow("does", None, ENDED, "testing", lambda *now: heard.append(now)) == last
    assert heard == [(1, 9)]


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("print('so\\nmuch', flush=True); os.kill(os.getpid(), 9)", "was killed by SIGKILL; it said: so much"),
        ("sys.exit(7)", "ended with exit code 7; it said: nothing"),
    ],
)
def test_how_it_ended_without_a_word_is_told(modules: Path, does: str, said: str) -> None:
    (modules / "does.py").write_text(f"import os, sys\n{does}\n")

    with pytest.raises(RunError) as failed:
        follow("does", None, ENDED, "testing")

    assert str(failed.value) == f"testing failed: its process {said}"


def test_one_that_falls_silent_is_stopped(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sut.process.child.SILENCE_S", 0.1)
    (modules / "sleeps.py").write_text("import time\ntime.sleep(600)\n")

    with pytest.raises(RunError, match="testing made no progress for 0 s and was stopped"):
        follow("sleeps", None, ENDED, "testing")


def pid_told_by(child: Child) -> int:
    said = next(events(child.chunks(), SAID, 60.0, "testing"))
    assert isinstance(said, Said)
    return said.pid


LEAVES_A_DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(int(sys.argv[2]), b'{"event": "said", "pid": %d}\\n' % os.getpid())
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


def test_what_it_left_behind_in_another_session_is_gone_too(modules: Path) -> None:
    (modules / "leaves.py").write_text(LEAVES_A_DAEMON)
    with tempfile.TemporaryFile() as file, spawn("leaves", None, Log(file)) as child:
        daemon = pid_told_by(child)
        assert os.getsid(daemon) != child.process.pid

    assert not Path(f"/proc/{daemon}").exists()


def test_what_other_children_leave_behind_meanwhile_lives_on(modules: Path) -> None:
    (modules / "leaves.py").write_text(LEAVES_A_DAEMON)
    other = subprocess.Popen(["sh", "-c", "read go; sleep 600 >&2 & echo $!"], stdin=-1, stdout=-1)
    assert other.stdin is not None
    assert other.stdout is not None
    with tempfile.TemporaryFile() as file, spawn("leaves", None, Log(file)) as child:
        daemon = pid_told_by(child)
        other.stdin.close()
        orphan = int(other.stdout.read())
        other.wait()

    try:
        assert not Path(f"/proc/{daemon}").exists()
        assert int(Path(f"/proc/{orphan}/stat").read_text().split()[3]) == os.getpid()
    finally:
        other.stdout.close()
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_it_dies_with_its_parent() -> None:
    script = (
        "import os, time\n"
        "from sut.process.telling import die_with_parent\n"
        "ours, theirs = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    die_with_parent()\n"
        "    os.write(theirs, b'x')\n"
        "    time.sleep(600)\n"
        "os.read(ours, 1)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)

    # The child too has this pipe open, for as long as it lives.
    assert process.communicate(timeout=60)[0] == b""
