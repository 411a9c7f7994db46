"""Version and commit: of this checkout, and in what a run leaves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sut
from plugins.packages import CHECKOUT
from sut import version
from sut.run.supervisor import Outcome


@pytest.fixture(autouse=True)
def nothing_is_kept() -> None:
    version.commit.cache_clear()


@pytest.mark.parametrize(
    ("in_git", "git", "commit"),
    [
        (True, "echo 4523dad0-dirty", "4523dad0-dirty"),
        (True, "exit 128", None),
        (True, None, None),
        (False, "echo of another project", None),
    ],
)
def test_the_commit_is_git_s_where_this_is_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_git: bool, git: str | None, commit: str | None
) -> None:
    if in_git:
        (tmp_path / ".git").touch()
    if git:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{git}\n")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(version, "CHECKOUT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert version.commit() == commit
    assert Outcome(0.0).version == (f"{sut.__version__}+g{commit}" if commit else sut.__version__)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_changed_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e@x", *words], check=True)

    monkeypatch.setattr(version, "CHECKOUT", tmp_path)
    file = tmp_path / "file"
    file.write_text("as committed")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")

    clean = version.own_version()
    version.commit.cache_clear()
    file.write_text("changed")

    assert re.fullmatch(re.escape(sut.__version__) + r"\+g[0-9a-f]{7,}", clean)
    assert version.own_version() == f"{clean}-dirty"


def test_the_version_that_is_installed_is_the_package_s_own() -> None:
    script = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(script, cwd=CHECKOUT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == sut.__version__
