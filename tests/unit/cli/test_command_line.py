"""The command line itself: numbers out of reach, words it does not know, and a reader that leaves."""

from __future__ import annotations

import io
import os
import threading
from typing import Any

import pytest

import sut
from sut import version
from sut.cli import app as cli
from sut.cli.commands import COMMANDS
from sut.config import make_config
from sut.errors import ExitCode, InputError
from sut.process.signals import Noted
from sut.process.streams import _Output
from tests.children import CHECKOUT, run_python


@pytest.mark.parametrize(
    "setting",
    [
        {"threads": 100_000},
        {"lanes": 100_000},
        {"preprocess_workers": 100_000},
        {"max_batchsize": 10**11},
        {"time_s": 1e30},
        {"qps": 1e30},
        {"max_latency_s": 1e30},
        {"samples_per_query": 10**21},
        {"performance_sample_count": 10**21},
    ],
)
def test_numbers_that_no_machine_or_loadgen_can_take(setting: dict[str, Any]) -> None:
    [name] = setting
    with pytest.raises(InputError, match=f"^{name}: Input should be less than or equal to "):
        make_config(setting)


def test_a_command_is_put_together_alone_and_once() -> None:
    code = (
        "import sys; from sut.cli.app import app, register; register('verify'); register('verify'); register('show')\n"
        "print(len(app.registered_commands), 'sut.cli.commands.whatif' in sys.modules)\n"
        "register('nobody'); register(); print(len(app.registered_commands) + len(app.registered_groups))"
    )
    child = run_python("-c", code, cwd=CHECKOUT)

    assert child.out.splitlines() == ["2 False", str(len(COMMANDS))], child.err


def test_a_word_that_is_nearly_a_command_is_not_taken_for_a_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main(["run", "--backend", "comprae"], Noted()) == ExitCode.USAGE

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown command or backend 'comprae'; did you mean compare? ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kernels"], "error: Missing command; "),
        (["kernels", "foo"], "error: No such command 'foo'; "),
        (["run", "foo"], "error: Got unexpected extra argument(s) (foo); "),
        (["run", "--batching", "fifo"], "error: No such option: --batching "),
    ],
)
def test_a_wrong_word_is_one_line_that_says_where_the_right_ones_are(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/src/sut/__main__.py", *words])  # as run_local.sh calls it

    assert cli._main(words, Noted()) == ExitCode.USAGE

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert line.endswith(f"; ./run_local.sh {words[0]} --help shows what there is")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("boundary", option) for option in ("--accuracy", "--find-peak-performance", "--demo", "--boundary=jpeg")),
        *(("tune", option) for option in ("--accuracy", "--find-peak-performance", "--demo")),
        *(("sweep", option) for option in ("--scenario=Server", "--accuracy", "--qps=1", "--max-latency=1")),
        *(("plan", option) for option in ("--accuracy", "--demo", "--scenario=Server", "--qps=1", "--max-latency=1")),
    ],
)
def test_an_option_without_effect_is_none(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main([command, option], Noted()) == ExitCode.USAGE

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: No such option: {option.partition('=')[0]}")


@pytest.mark.parametrize("command", ["boundary", "tune", "whatif"])
def test_one_scenario_is_taken(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main([command, "--scenario", "all"], Noted()) == ExitCode.USAGE

    assert "one scenario in performance mode; give one --scenario" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *(["sweep"], ["breakdown"], ["plan", "--rate", "5", "--p99", "50ms"]),
        *(["study", name] for name in ("ladder", "models", "shortcuts")),
    ],
    ids=" ".join,
)
def test_a_stretched_system_is_nothing_to_study(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main([*words, "--set", "slowdown.infer=2"], Noted()) == ExitCode.USAGE

    name = " ".join(words[: 1 + (words[0] == "study")])
    assert f"error: sut {name} measures the system as it is; leave the setting slowdown out" in capsys.readouterr().err


def test_a_plan_needs_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main(["plan", "--p99", "5ms"], Noted()) == ExitCode.USAGE

    assert capsys.readouterr().err.startswith("error: --rate takes queries a second, more than 0, got nothing")


def test_the_version_is_told_with_the_commit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for found in ("4523dad0-dirty", None):
        monkeypatch.setattr(version, "commit", lambda found=found: found)
        assert cli._main(["--version"], Noted()) == ExitCode.OK
        told.append(capsys.readouterr().out)

    name = f"loadgen-vision-sut {sut.__version__}"
    assert told == [f"{name}, commit 4523dad0-dirty\n", f"{name}\n"]


def test_a_reader_that_leaves_does_not_end_the_work() -> None:
    reader, writer = os.pipe()
    os.close(reader)

    with _Output(writer, told=True) as output:
        assert [output.write(b"two"), output.write(b"lines")] == [3, 5]


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sent = bytes(range(256)) * 2**13
    got = bytearray()
    stream = os.fdopen(reader, "rb")
    thread = threading.Thread(target=lambda: got.extend(stream.read()), daemon=True)
    thread.start()

    with io.BufferedWriter(_Output(writer, told=False)) as output:
        output.write(sent)
    os.close(writer)
    thread.join()
    stream.close()

    assert got == sent


def test_what_shows_more_is_named_where_the_command_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr("sut.run.runner.run_all", fail)
    monkeypatch.setattr("sut.models.registry.find", fail)

    assert [cli._main([command], Noted()) for command in ("run", "parity")] == [ExitCode.FAILED] * 2

    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: RuntimeError: a fault of our own; --debug shows where"
    assert second == "error: RuntimeError: a fault of our own"
