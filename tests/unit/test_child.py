"""Processes of the project's own: what they inherit, what they tell, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sut.child import end_of, environment, json_lines, spawn
from sut.errors import RunError

CHECKOUT = str(Path(__file__).parents[2])


def test_the_checkout_is_the_first_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere:{CHECKOUT}")
    assert environment()["PYTHONPATH"] == f"{CHECKOUT}:/elsewhere"

    monkeypatch.delenv("PYTHONPATH")
    assert environment()["PYTHONPATH"] == CHECKOUT


def test_lines_are_whole_however_they_arrive() -> None:
    ours, theirs = os.pipe()
    told = []
    os.write(theirs, b'{"done": 1}\n{"do')
    for line in json_lines(ours, 5.0, "testing"):
        told.append(line)
        if len(told) == 1:
            os.write(theirs, b'ne": 2}\n{"cut off')
            os.close(theirs)
    os.close(ours)

    assert told == [{"done": 1}, {"done": 2}]


def test_silence_has_an_end() -> None:
    ours, theirs = os.pipe()
    with pytest.raises(RunError, match="testing made no progress for 0 s and was stopped"):
        next(json_lines(ours, 0.1, "testing"))
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be spawned."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_module_gets_its_arguments_its_variables_and_its_descriptors(modules: Path) -> None:
    (modules / "says.py").write_text(
        "import json, os, sys\n"
        "print('noise', flush=True)\n"
        "found = os.read(int(sys.argv[2]), 9).decode()\n"
        "told = {'given': sys.argv[1], 'read': found, 'set': os.environ['OF_ITS_OWN']}\n"
        "os.write(int(sys.argv[3]), json.dumps(told).encode() + b'\\n')\n"
    )
    more, write = os.pipe()
    os.write(write, b"inherited")
    with tempfile.TemporaryFile() as log:
        with spawn("says", ["word", str(more)], log, [more], {"OF_ITS_OWN": "1"}) as (process, pipe):
            told = list(json_lines(pipe, 60.0, "testing"))
            code = process.wait(60)
        assert told == [{"given": "word", "read": "inherited", "set": "1"}]
        assert end_of(code, log) == "its process ended with exit code 0; it said: noise"
    os.close(more)
    os.close(write)


def test_it_is_gone_when_the_block_is_left(modules: Path) -> None:
    (modules / "waits.py").write_text("import os, sys, time\nos.write(int(sys.argv[1]), b'{}\\n')\ntime.sleep(600)\n")
    open_before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with tempfile.TemporaryFile() as log:
        with pytest.raises(KeyboardInterrupt), spawn("waits", [], log) as (process, pipe):
            next(json_lines(pipe, 60.0, "testing"))
            assert os.getsid(process.pid) == process.pid
            raise KeyboardInterrupt
        assert end_of(process.returncode, log) == "its process was killed by SIGKILL; it said: nothing"
    assert sorted(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_it_dies_with_its_parent() -> None:
    script = (
        "import os, time\n"
        "from sut.child import die_with_parent\n"
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
