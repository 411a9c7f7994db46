"""What the parts of the GPU report share: commands of ``sut``, what they tell, and how errors become rows."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from plugins.packages import CHECKOUT
from sut.errors import ExitCode
from sut.process.child import environment
from sut.process.telling import die_with_parent
from sut.studies.gpu_report.schema import PartEnd

_SAID = 300


def rows_of(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, rows and standard error of a ``sut`` command. Raises as ``told_by``."""
    code, told, said = told_by(*arguments)
    return code, told["rows"], said


def told_by(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, what ``--json`` printed and standard error of a ``sut`` command.

    Where it printed nothing it raises ``RuntimeError``, or ``ModuleNotFoundError`` where it says that something is not
    installed.
    """
    done = run([sys.executable, "-P", "-m", "sut", *arguments, "--json"])
    if not done.stdout:
        kind = ModuleNotFoundError if done.returncode == ExitCode.SETUP else RuntimeError
        raise kind(f"sut {' '.join(arguments)} ended with {done.returncode}: {last_line(done.stderr)}")
    return done.returncode, json.loads(done.stdout), done.stderr


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which comes with this process's at the latest."""
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False, preexec_fn=die_with_parent
    )


def last_line(text: str) -> str:
    """The last that a program said."""
    return text.strip().rpartition("\n")[2][-_SAID:] or "nothing"


def tell(end: PartEnd) -> None:
    """Tell the process that runs the parts, which takes the last word of this one."""
    print(json.dumps(end.model_dump(exclude_defaults=True) | {"ok": end.ok}), flush=True)


def tell_so_far(found: dict[str, Any]) -> None:
    """What is known if this process comes no further."""
    tell(PartEnd(ok=False, found=found))


@contextmanager
def noted(name: str, wrong: list[dict[str, Any]], not_installed: dict[str, str] | None = None) -> Iterator[None]:
    """What is raised about ``name`` is one of those that are ``wrong``.

    What is not installed is raised on, unless it may be missing, and is noted among those.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not_installed is None:
            raise
        not_installed[name] = why_of(error)
    except Exception as error:
        wrong.append({"of": name, "why": why_of(error)})


@contextmanager
def watched(folders: tuple[str, ...]) -> Iterator[set[str]]:
    """Functions of files in ``folders`` that are called in any thread, as they come: file, without .py, and name."""
    called: set[str] = set()

    def watch(frame: Any, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(folders):
            called.add(f"{file.removesuffix('.py')}.{frame.f_code.co_qualname}")

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield called
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def names_of(called: Iterable[str]) -> list[str]:
    """What ``watched`` saw, as a report names it: ``preprocess.opencv.OpenCV.version``."""
    return sorted(each.removeprefix(f"{CHECKOUT}/").replace("/", ".") for each in called)


def why_of(error: BaseException) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
