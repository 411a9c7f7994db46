"""What the pages for newcomers name is there: files, links, and the tests that hold what must hold."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from benchmarks.paper import CLAIMS, THESIS
from benchmarks.studies import STUDIES
from sut.cli.app import app, register
from sut.cli.commands import COMMANDS
from sut.errors import ExitCode
from sut.models.registry import find
from sut.studies.beyond_inference.paper import CLAIMS as PAPER
from tests.children import CHECKOUT

PAGES = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
    *("docs/architecture.md", "docs/contract.md", "docs/results.md", "docs/submission.md"),
    *("docs/beyond-inference.md", "docs/channels.md", "docs/detection.md", "docs/studies.md", "docs/pipelines.md"),
    *("docs/triton.md",),
    *("docs/brokers.md", "docs/channels.md", "docs/detection.md", "docs/studies.md", "docs/pipelines.md"),
)
PATH = re.compile(r"`((?:\.ci|\.github|sut|backends|preprocess|kernels|plugins|docs|tests|tools|docker)/[\w./-]*)`")
"""A path as a page writes it; one with NAME in it is the reader's."""
TEST = re.compile(r"`(test_\w+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    links = [Path(page).parent / link for link in LINK.findall(text)]
    paths = [path for path in PATH.findall(text) if "NAME" not in path]

    assert [str(path) for path in (*links, *paths) if not (CHECKOUT / path).exists()] == []


def test_what_must_hold_has_tests() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "tests").rglob("test_*.py"))
    named = TEST.findall((CHECKOUT / "docs/architecture.md").read_text(encoding="utf-8"))

    assert named and [name for name in named if f"def {name}(" not in tests] == []


def test_ci_runs_the_scripts_on_every_python_that_is_supported() -> None:
    job = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["test"]
    asked = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', (CHECKOUT / "setup.py").read_text(encoding="utf-8"))

    assert asked and job["strategy"]["matrix"]["python"] == [f"3.{n}" for n in range(int(asked[1]), int(asked[2]))]
    assert [step["run"].split()[0] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_the_contract_has_every_command_and_exit_code() -> None:
    page = (CHECKOUT / "docs/contract.md").read_text(encoding="utf-8")
    first_words = [set(re.findall(r"^\| `?([a-z-]+|\d+)\b", part, re.MULTILINE)) for part in page.split("\n## ")]
    files = {path.stem.replace("_", "-") for path in (CHECKOUT / "sut/cli/commands").glob("[a-z]*.py")}

    assert files == {*COMMANDS} == first_words[1] - {"command"}
    assert {str(int(code)) for code in ExitCode} == first_words[2] - {"code"}


def commands_of(page: str) -> list[str]:
    """What a page tells to type, in its blocks."""
    blocks = re.findall(r"^```\n(.*?)^```", (CHECKOUT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "./run_local.sh" in line]


@pytest.mark.parametrize("line", [*commands_of("docs/detection.md"), *commands_of("docs/beyond-inference.md")])
def test_the_commands_of_a_walk_are_commands(line: str) -> None:
    words = shlex.split(line.partition("./run_local.sh ")[2])
    product()
    if words[0] not in COMMANDS:  # run_local.sh takes them for these
        backend, model, device, *rest = words
        words = ["run", "--backend", backend, "--model", model, "--device", device, *rest]
    check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        *(study.command for study in STUDIES.values()),
        *(claim.command for claim in (*CLAIMS, *THESIS) if claim.command and not claim.command.startswith("python ")),
        *dict.fromkeys(claim.command for claim in PAPER),
    ],
)
def test_the_commands_of_the_studies_are_commands(line: str) -> None:
    words = shlex.split(line)
    check_command(words)
    if "--model" in words:
        weights = words[words.index("--weights") + 1] if "--weights" in words else "trained"
        assert weights in find(words[words.index("--model") + 1]).makes, "no file of theirs is made on a new machine"


@cache
def product() -> TyperGroup:
    """The product's command line; it takes seconds to make."""
    register()
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def check_command(words: list[str]) -> None:
    """Raise for a command or an option that there is not, or a value of none."""
    group = product()
    context = group.make_context("sut", list(words))
    while True:
        name, found, words = group.resolve_command(context, words)
        assert name is not None and found is not None
        context = found.make_context(name, list(words), parent=context)
        if not isinstance(found, TyperGroup):
            break
        group = found
