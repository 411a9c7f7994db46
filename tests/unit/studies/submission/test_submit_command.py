"""``sut submit`` but for its runs: what is refused, planned, packed and judged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sut.cli import app as cli
from sut.process.signals import Noted
from sut.studies.submission import tree as trees
from tests.children import CHECKOUT
from tests.unit.mlperf.tree.trees import closed_edge
from tests.unit.studies.submission.loadgen_runs import edit

EXAMPLE = CHECKOUT / "docs/examples/submission.yaml"
SUBMITTER = "Example_Organisation"
Submit = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Submit:
    """The command in a folder of its own: exit code, what is printed, the lines on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path) -> tuple[int, str, list[str]]:
        code = cli._main(["submit", *map(str, arguments)], Noted())
        told = capsys.readouterr()
        return int(code), told.out, told.err.splitlines()

    return run


@pytest.fixture
def about(tmp_path: Path) -> Path:
    """The example, and what the machine of ``home`` does not tell."""
    more = "  host_processors_per_node: 1\n  host_processor_core_count: 2\n  operating_system: Linux\n"
    file = tmp_path / "about.yaml"
    file.write_text(EXAMPLE.read_text() + more)
    return file


def test_a_sound_tree_is_judged_sound_and_another_by_file_and_field(tmp_path: Path, submit: Submit) -> None:
    tree = closed_edge(tmp_path / "tree")

    code, out, _ = submit("--check", "tree")

    assert (code, out) == (0, "tree: sound, no doubts\n")

    path = "closed/Example/results/box/resnet50/Offline/accuracy/accuracy.txt"
    tree.replace(path, "good=38228", "good=38229")
    code, out, _ = submit("--check", "tree")

    [line, last] = out.splitlines()
    assert code == 4
    assert line.startswith(f"impossible: {path}: accuracy: got ")
    assert last == "tree: not accepted, 1 finding"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give RESULTS, --about FILE and --output DIR; or --rehearse"),
        (["runs", "--output", "tree"], "give RESULTS, --about FILE and --output DIR"),
        (["--plan", "empty"], "a plan is of the submission that --about FILE tells of"),
        (["--check", "nowhere"], "nowhere: cannot be read (No such file or directory)"),
        (["--check", "empty"], "empty: holds neither closed nor open nor network"),
        (["--check", "empty", "--rehearse"], "--rehearse has no effect with --check; leave it out"),
        (["empty", "--about", "a.yaml", "-o", "tree", "--time", "3"], "an option of sut run has no effect"),
        (["a", "b", "--rehearse"], "RESULTS of a rehearsal is one folder"),
        (["--rehearse", "--scenario", "Offline"], "the closed division asks for SingleStream, MultiStream, Offline"),
        (["--rehearse", "--division", "half"], "--division is closed or open or network, got 'half'"),
        (["--rehearse", "--division", "open", "--about", "a.yaml"], "a.yaml tells the division"),
        (["--rehearse", "--about", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["empty", "--about", "a.yaml", "-o", "tree"], "a.yaml: submitter: expected a name"),
        (["empty", "--about", "b.yaml", "-o", "tree"], "empty: no result of a run"),
        (["empty", "--about", "b.yaml", "-o", "there"], "choose another --output or system"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    tmp_path: Path, submit: Submit, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "there/closed/Somebody/results/box").mkdir(parents=True)
    (tmp_path / "a.yaml").write_text("submitter: a/b\ndivision: closed\nsystem: box\n")
    (tmp_path / "b.yaml").write_text("submitter: Somebody\ndivision: closed\nsystem: box\n")

    code, out, [error] = submit(*arguments)

    assert (code, out) == (1, "")
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "tree").exists()


def test_a_plan_has_each_command_on_a_line_however_narrow_the_terminal(submit: Submit) -> None:
    data = "/a/path/to/the/pictures/that/is/longer/than/a/line/of/a/terminal/has/room/for"

    code, out, _ = submit("--plan", "--about", EXAMPLE, "--model", "resnet50", "--dataset-path", data)

    assert code == 0
    table, _, commands = out.partition("in all:\n")
    assert max(map(len, table.splitlines())) <= 80
    assert table.count("missing") == 14  # twelve runs, the tree, and why
    lines = commands.splitlines()
    assert len(lines) == 13 and all(line.startswith("./run_local.sh ") for line in lines)
    assert [line for line in lines if data in line] == [line for line in lines if "audit" not in line][:-1]
    assert lines[-1] == f"./run_local.sh submit FOLDER --about {EXAMPLE} --output submission"


def test_a_plan_without_options_has_no_command_that_is_refused(submit: Submit) -> None:
    code, out, _ = submit("--plan", "--about", EXAMPLE)

    assert code == 0
    first, *_ = out.partition("in all:\n")[2].splitlines()
    assert first == "./run_local.sh --model resnet50 --rules closed --scenario SingleStream"


def test_the_plan_of_a_rehearsal_is_its_command_and_takes_no_longer(submit: Submit) -> None:
    code, out, _ = submit("--rehearse", "--plan", "--division", "open", "--scenario", "Offline")

    assert code == 0
    command = "./run_local.sh submit output --rehearse --dataset demo --time 10 --division open --scenario Offline"
    assert out.splitlines()[-2:] == ["to be typed, at least 18 s in all:", command]


@pytest.mark.usefixtures("short")
def test_finished_runs_become_a_tree_that_the_judge_accepts(
    submit: Submit, home: Path, about: Path, tmp_path: Path
) -> None:
    code, out, errors = submit(home, "--about", about, "--output", "tree", "--json")

    told = json.loads(out)
    assert (code, [each for each in errors if each.startswith("error")]) == (0, []), told["rows"]
    assert (told["runs"], told["rehearsal"], told["accepted"]) == (12, False, True)
    assert len([*(tmp_path / "tree/closed" / SUBMITTER).rglob("mlperf_log_detail.txt")]) == 12

    code, out, [error] = submit(home, "--about", about, "--output", "tree", "--overwrite")

    assert (code, out) == (1, "") and "is no rehearsal, and nothing else is replaced" in error


@pytest.mark.usefixtures("short")
def test_what_logs_tell_of_the_machine_is_a_warning(submit: Submit, home: Path, about: Path) -> None:
    with (home / "Offline/performance/mlperf_log_summary.txt").open("a") as file:
        file.write("loaded /home/me/a.jpg\n")

    code, _, errors = submit(home, "--about", about, "--output", "tree", "--json")

    path = f"tree/closed/{SUBMITTER}/results/example_box-cpu-onnxruntime/resnet50/Offline/performance/run_1"
    said = f"warning: {path}/mlperf_log_summary.txt: /home/me/a.jpg, which tells of this machine: is it for everybody?"
    assert code == 0 and said in errors


def test_all_that_is_wrong_is_listed_and_nothing_is_written(
    submit: Submit, home: Path, about: Path, tmp_path: Path
) -> None:
    shutil.rmtree(home / "Offline/TEST04")
    edit(home / "MultiStream/performance", valid=False, invalid_reasons=["too few"])
    about.write_text(about.read_text().replace("  cooling: air\n", ""))

    code, out, errors = submit(home, "--about", about, "--output", "tree")

    assert (code, out) == (1, "")
    *faults, last = errors
    assert last == f"nothing was written: {len(faults)} things to mend"
    for words in (
        "Offline TEST04: there is no such run",
        "MultiStream performance, valid: got false",
        "fields.cooling",
    ):
        assert [each for each in faults if each.startswith(f"error: {words}")], words
    assert not (tmp_path / "tree").exists()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kept", ["nothing", "a rehearsal"])
def test_an_interruption_leaves_what_was_there(
    submit: Submit, home: Path, about: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    if kept == "a rehearsal":
        readme = tmp_path / "tree/closed" / SUBMITTER / "src/resnet50/README.md"
        readme.parent.mkdir(parents=True)
        readme.write_text("REHEARSAL, not a submission\n")
    before = {path for path in (tmp_path / "tree").rglob("*")}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trees, "_check_hashes", interrupted)
    code, out, errors = submit(home, "--about", about, "--output", "tree", "--overwrite")

    assert (code, out, errors[-1]) == (130, "", "error: interrupted")
    assert {path for path in (tmp_path / "tree").rglob("*")} == before
