"""What the command line adds to a message about a missing module."""

from __future__ import annotations

import pytest

from sut.cli import app as cli
from sut.errors import ExitCode
from sut.process.signals import Noted

HINT = "; ./run_local.sh sets up what is needed"


@pytest.mark.parametrize(
    ("message", "hinted"),
    [
        ("No module named 'rich'", True),
        ("the preprocessor dali needs nvidia-dali-cuda130: pip install nvidia-dali-cuda130", False),
        ("no NVIDIA driver (libcuda.so.1 does not load): install one, or start the container with --gpus all", False),
        ("a driver with CUDA 12 (this one has 11.4); update the driver", False),
    ],
)
def test_the_way_out_is_added_where_the_message_names_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], message: str, hinted: bool
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise ModuleNotFoundError(message)

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "_register", lambda name: None)

    assert cli._main(["doctor"], Noted()) == ExitCode.SETUP
    assert capsys.readouterr().err == f"error: {message}{HINT if hinted else ''}\n"
