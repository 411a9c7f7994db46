"""A submission's tree: what is in it, what it takes the place of, and what is left where it fails."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sut.config import make_config
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.logs import ACCURACY, DETAIL, SUMMARY
from sut.mlperf.tree.judge import REHEARSAL
from sut.studies.submission import tree
from sut.studies.submission.runs import Entry, Runs
from sut.studies.submission.tree import private_words, write_tree
from tests.unit.loadgen_logs import entry
from tests.unit.studies.submission.finished_runs import about, answers, finished, read_json, snapshot

LOGS = {DETAIL, SUMMARY}
OF_SCENARIO = {
    *("measurements.json", "user.conf", "README.md"),
    *(f"performance/run_1/{name}" for name in LOGS),
    *(f"accuracy/{name}" for name in (*LOGS, "accuracy.txt", ACCURACY)),
}
OF_AUDITS = {
    *(f"{audit}/performance/run_1/{name}" for audit in official.AUDITS for name in LOGS),
    *(f"TEST01/{name}" for name in ("verify_accuracy.txt", "verify_performance.txt")),
    *(f"TEST01/accuracy/{name}" for name in ("accuracy.txt", ACCURACY)),
    "TEST04/verify_performance.txt",
}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_closed_tree_holds_what_is_asked_for_and_nothing_else(tmp_path: Path) -> None:
    written = write_tree(finished(tmp_path / "home"), about(), tmp_path / "out", None)

    results = {
        f"results/box/resnet50/{scenario}/{name}" for scenario in official.EDGE for name in OF_SCENARIO | OF_AUDITS
    }
    home = tmp_path / "out" / "closed" / "Org"
    assert files_below(home) == results | {"src/resnet50/README.md", "systems/box.json", "calibration.md"}
    assert files_below(tmp_path / "out") == {str(path.relative_to(tmp_path / "out")) for path in written}
    assert all(path.stat().st_size for path in written)


def test_an_open_tree_has_no_audits_and_maps_its_model(tmp_path: Path) -> None:
    told = about(division="open", model="mine")

    write_tree(finished(tmp_path / "home", "Offline"), told, tmp_path / "out", None)

    home = tmp_path / "out" / "open" / "Org"
    results = {f"results/box/mine/Offline/{name}" for name in OF_SCENARIO}
    assert files_below(home) == results | {"src/mine/README.md", "systems/box.json", "model_mapping.json"}
    assert read_json(home / "model_mapping.json") == {"mine": "resnet"}


@pytest.mark.parametrize("name", ["resnet", "resnet50-v1.5", "mobilenet", "efficientnet-lite0"])
def test_a_known_model_is_not_mapped(name: str, tmp_path: Path) -> None:
    runs = finished(tmp_path / "home", "Offline", roles=("performance", "accuracy"), model=name)

    write_tree(runs, about(division="open"), tmp_path / "out", None)

    assert {"src", "systems", "results"} == {path.name for path in (tmp_path / "out/open/Org").iterdir()}
    assert (tmp_path / "out/open/Org/results/box" / name).is_dir()


def test_loadgens_logs_are_copied_byte_for_byte(tmp_path: Path) -> None:
    runs = finished(tmp_path / "home")

    write_tree(runs, about(), tmp_path / "out", None)

    for scenario, each in runs.entries.items():
        place = tmp_path / "out/closed/Org/results/box/resnet50" / scenario
        there = {"accuracy": place / "accuracy"} | {
            test: place / test / "performance/run_1" for test in official.AUDITS
        }
        for role, folder in (there | {"performance": place / "performance/run_1"}).items():
            for name in LOGS:
                assert (folder / name).read_bytes() == (each.runs[role].folder / name).read_bytes()


@pytest.mark.parametrize("count", [300, 20], ids=["truncated", "whole"])
def test_a_hash_is_that_of_the_whole_log(count: int, tmp_path: Path) -> None:
    write_tree(finished(tmp_path / "home", count=count), about(), tmp_path / "out", None)

    whole, is_cut = answers(count), count == 300
    for place in ("accuracy", "TEST01/accuracy"):
        folder = tmp_path / "out/closed/Org/results/box/resnet50/MultiStream" / place
        score = f"accuracy={100 * (good := count * 23 // 30) / count:.3f}%, good={good}, total={count}"
        assert (folder / "accuracy.txt").read_text() == f"{score}\nhash={hashlib.sha256(whole).hexdigest()}\n"
        ends = whole[:4096] + b"\n\n...\n\n" + whole[-4096:] if is_cut else whole
        assert (folder / ACCURACY).read_bytes() == ends


def spoil_hash(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """The log is written anew while the tree is."""
    write = Path.write_bytes

    def written(path: Path, content: bytes) -> int:
        if path.name == ACCURACY and path != source:
            write(source, answers(301))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", written)


def spoil_writing(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """What is written is not what was to be."""
    write = Path.write_bytes
    monkeypatch.setattr(
        Path, "write_bytes", lambda path, content: write(path, content[:-1] if path.name == ACCURACY else content)
    )


@pytest.mark.parametrize("spoil", [spoil_hash, spoil_writing])
def test_a_hash_that_no_longer_fits_is_found(
    spoil: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = finished(tmp_path / "home", "Offline", roles=("performance", "accuracy"))
    source = runs.entries["Offline"].runs["accuracy"].folder / ACCURACY
    spoil(monkeypatch, source)

    with pytest.raises(InputError, match=f"^{source} no longer fits its hash"):
        write_tree(runs, about(division="open"), tmp_path / "out", None)

    assert not (tmp_path / "out").exists()


Spoil = Callable[[Path], object]


def cut(path: Path) -> None:
    whole = (path / "accuracy" / ACCURACY).read_bytes()
    (path / "accuracy" / ACCURACY).write_bytes(whole[:4096] + b"\n\n...\n\n" + whole[-4096:])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, r"accuracy/mlperf_log_accuracy\.json is truncated"),
        (lambda path: (path / "accuracy" / ACCURACY).write_text("[{"), "is cut off or not JSON"),
        (lambda path: (path / "TEST01" / ACCURACY).write_text("[]"), r"TEST01/mlperf_log_accuracy\.json holds no"),
        (lambda path: (path / "accuracy" / "accuracy.txt").write_text("good\n"), r"accuracy\.txt: expected 'accuracy="),
        (lambda path: (path / "TEST01" / "verify_accuracy.txt").unlink(), r"verify_accuracy\.txt: cannot be read"),
        (lambda path: (path / "TEST04" / SUMMARY).unlink(), r"TEST04/mlperf_log_summary\.txt: cannot be read"),
        (lambda path: (path / "performance" / DETAIL).write_text(""), r"mlperf_log_detail\.txt: requested_"),
        (lambda path: (path / "performance" / DETAIL).unlink(), r"performance/mlperf_log_detail\.txt: No such file"),
        (lambda path: ((path / "TEST04" / DETAIL).unlink(), os.mkfifo(path / "TEST04" / DETAIL)), "Is a named pipe"),
    ],
)  # fmt: skip
def test_a_run_that_lacks_something_is_refused_before_anything_is_written(
    spoil: Spoil, message: str, tmp_path: Path
) -> None:
    runs = finished(tmp_path / "home")
    spoil(tmp_path / "home" / "Offline")

    with pytest.raises(InputError, match=message):
        write_tree(runs, about(), tmp_path / "out", None)

    assert not (tmp_path / "out").exists()


def test_a_run_that_is_missing_is_named(tmp_path: Path) -> None:
    runs = finished(tmp_path / "home", roles=("performance", "accuracy", "TEST01"))

    with pytest.raises(InputError, match="SingleStream has no TEST04 run"):
        write_tree(runs, about(), tmp_path / "out", None)
    with pytest.raises(InputError, match="no runs"):
        write_tree(Runs(tmp_path, {}), about(), tmp_path / "out", None)


def test_fields_that_nobody_told_are_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"systems/box\.json: not told: host_memory_configuration, .*, cooling;"):
        write_tree(finished(tmp_path / "home"), about(fields={}), tmp_path / "out", None)


def test_a_model_whose_name_is_no_folders_is_to_be_called_otherwise(tmp_path: Path) -> None:
    runs = finished(tmp_path / "home", "Offline", roles=("performance", "accuracy"), model="Köln+1")

    with pytest.raises(InputError, match=r"'Köln\+1' cannot be a folder's"):
        write_tree(runs, about(division="open"), tmp_path / "out", None)


@pytest.mark.parametrize(
    "existing", ["closed/Org/results/box", "closed/Org/systems/box.json", "closed/Org", "closed/Org/src"]
)
def test_what_is_there_is_refused_and_left_as_it_is(existing: str, tmp_path: Path) -> None:
    (tmp_path / "out" / existing).mkdir(parents=True)
    before = snapshot(tmp_path / "out")

    named = existing.removesuffix("/src")
    with pytest.raises(InputError, match=f"^{tmp_path / 'out' / named} is there already"):
        write_tree(finished(tmp_path / "home"), about(), tmp_path / "out", None)

    assert snapshot(tmp_path / "out") == before


def test_a_link_that_leads_nowhere_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "Org").symlink_to(tmp_path / "nowhere")

    with pytest.raises(InputError, match="closed/Org is there already"):
        write_tree(finished(tmp_path / "home"), about(), tmp_path, None)


def test_another_system_is_added_and_the_first_is_kept(tmp_path: Path) -> None:
    runs, open_ = finished(tmp_path / "home", "Offline"), about(division="open", model="mine")
    other = open_.model_copy(update={"system": "other", "model": "yours"})
    home = tmp_path / "out" / "open" / "Org"
    write_tree(runs, open_, tmp_path / "out", None)
    before = snapshot(home)

    write_tree(runs, other, tmp_path / "out", None)

    after = snapshot(home)
    assert {name for name in before if after[name] != before[name]} == {"model_mapping.json"}
    assert read_json(home / "model_mapping.json") == {"mine": "resnet", "yours": "resnet"}
    assert {"systems/other.json", "results/other/yours", "src/yours/README.md"} <= set(after)
    assert [path.name for path in (tmp_path / "out" / "open").iterdir()] == ["Org"]


def test_systems_share_what_is_said_of_their_model(tmp_path: Path) -> None:
    home = tmp_path / "closed" / "Org"
    write_tree(finished(tmp_path / "a"), about(), tmp_path, None)
    first = {name: (home / name).read_text() for name in ("calibration.md", "src/resnet50/README.md")}
    int8 = finished(tmp_path / "b", precision="int8", notes=["calibrated on 500 pictures in the list a.txt"])

    write_tree(int8, about(system="other"), tmp_path, None)

    for name, text in first.items():
        now = (home / name).read_text()
        assert now.startswith(text) and "## other, resnet50" in now[len(text) :] and "a.txt" in now[len(text) :]


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1} ' * 2, "\0"])
def test_a_mapping_that_is_none_is_named_and_left(text: str, tmp_path: Path) -> None:
    runs, told = finished(tmp_path / "home", "Offline"), about(division="open", model="mine")
    write_tree(runs, told, tmp_path / "out", None)
    (tmp_path / "out/open/Org/model_mapping.json").write_text(text)
    before = snapshot(tmp_path / "out")

    with pytest.raises(InputError, match=r"model_mapping\.json: "):
        write_tree(runs, told.model_copy(update={"system": "other"}), tmp_path / "out", None)

    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize("relaxed", [None, ["short"]])
def test_a_rehearsal_is_not_mixed_with_what_is_none(relaxed: list[str] | None, tmp_path: Path) -> None:
    runs = finished(tmp_path / "home")
    write_tree(runs, about(), tmp_path / "out", relaxed)

    with pytest.raises(InputError, match=r"src/resnet50/README\.md: what is there is (a|no) rehearsal"):
        write_tree(runs, about(system="other"), tmp_path / "out", ["short"] if relaxed is None else None)


class Interrupting:
    """Fails at one call of a method of paths, and at no other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, at: int, error: BaseException) -> None:
        self.calls = 0
        method = getattr(Path, name)

        def called(path: Path, *arguments: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == at:
                raise error
            return method(path, *arguments, **more)

        monkeypatch.setattr(Path, name, called)


@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("method", ["mkdir", "write_bytes", "rename"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_nothing_is_left_wherever_it_fails(
    error: BaseException, method: str, is_second: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, told = tmp_path / "out", about(division="open", model="mine")
    runs = finished(tmp_path / "home", "Offline", roles=("performance", "accuracy"))
    if is_second:
        write_tree(runs, told.model_copy(update={"system": "first", "model": "other"}), out, None)
    before = snapshot(tmp_path)
    at = 0
    while True:
        at += 1
        with monkeypatch.context() as patched:
            count = Interrupting(patched, method, at, error)
            try:
                write_tree(runs, told, out, None)
                break
            except InputError as refused:
                assert isinstance(error, OSError) and "No space left on device" in str(refused)
            except KeyboardInterrupt:
                assert isinstance(error, KeyboardInterrupt)
        assert snapshot(tmp_path) == before, f"{method} {at}"
    assert count.calls < at and at > 1


def test_what_is_inferred_has_its_sources_logs_and_says_so(tmp_path: Path) -> None:
    runs = finished(tmp_path / "home", "SingleStream")
    source = runs.entries["SingleStream"].runs
    both = {**runs.entries, "Offline": Entry("Offline", source, inferred_from="SingleStream")}

    write_tree(Runs(runs.home, both), about(inferred={"Offline": "SingleStream"}), tmp_path / "out", None)

    model = tmp_path / "out/closed/Org/results/box/resnet50"
    readme = (model / "Offline" / "README.md").read_text()
    assert "Offline is inferred from SingleStream" in readme
    assert "inferred" not in (model / "SingleStream" / "README.md").read_text()
    there, here = snapshot(model / "SingleStream"), snapshot(model / "Offline")
    assert {name for name in there if there[name] != here[name]} == {"README.md"} and set(there) == set(here)
    assert "--scenario SingleStream\n" in (tmp_path / "out/closed/Org/src/resnet50/README.md").read_text()


def test_a_rehearsal_is_marked_everywhere_and_called_nothing_else(tmp_path: Path) -> None:
    written = write_tree(finished(tmp_path / "home"), about(fields={}), tmp_path / "out", ["short run"])

    readmes = [path for path in written if path.name == "README.md"]
    assert len(readmes) == 4
    for path in readmes:
        text = path.read_text()
        assert text.startswith(f"{REHEARSAL}\n") and "- short run\n" in text and "not told: " in text
    notes = read_json(tmp_path / "out/closed/Org/systems/box.json")["sw_notes"]
    assert notes.startswith(f"{REHEARSAL}: short run; systems/box.json: not told: ")
    for path in written:
        if path.suffix in (".md", ".json", ".conf"):
            assert "submission" not in path.read_text().replace(REHEARSAL, "").lower(), path


def test_a_submission_is_not_marked(tmp_path: Path) -> None:
    written = write_tree(finished(tmp_path / "home"), about(), tmp_path / "out", None)

    assert all("rehearsal" not in path.read_text().lower() for path in written)


def settings_in(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    return found


def test_a_readme_repeats_the_run_and_tells_no_folder_of_this_machine(tmp_path: Path) -> None:
    config = {
        "backend": "openvino", "precision": "int8", "rules": "closed", "dataset_path": "/home/me/imagenet",
        "calibration_list": "/home/me/cal_1.txt", "output": "/home/me/out", "scenario": "Offline",
        "backend_options": {"streams": 2, "cache": "/home/me/cache"}, "user_conf": "/home/me/user.conf",
    }  # fmt: skip
    plan = {"lanes": 2, "threads": 1, "max_batchsize": 16}
    runs = finished(tmp_path / "home", config=config, plan=plan, precision="int8", versions={})

    written = write_tree(runs, about(), tmp_path / "out", None)

    folder = tmp_path / "out/closed/Org"
    offline = settings_in((folder / "results/box/resnet50/Offline/README.md").read_text())
    single = settings_in((folder / "results/box/resnet50/SingleStream/README.md").read_text())
    shared = settings_in((folder / "src/resnet50/README.md").read_text())
    assert shared | plan == offline and shared | {"threads": 1} == single
    again = make_config(offline)
    assert (again.backend, again.precision, again.rules, str(again.calibration_list)) == (
        *("openvino", "int8", "closed", "cal_1.txt"),
    )
    assert not [path for path in written if "/home/me" in path.read_text()]
    assert private_words(written) == []


@pytest.mark.parametrize("config", [{}, {"dataset": "demo"}])
def test_the_demo_photos_are_no_list_that_somebody_else_could_write(config: dict[str, Any], tmp_path: Path) -> None:
    write_tree(finished(tmp_path / "home", config=config), about(), tmp_path / "out", None)

    source = (tmp_path / "out/closed/Org/src/resnet50/README.md").read_text()
    assert "- Data: the photos that come with this project" in source and "val_map.txt" not in source


def test_what_logs_tell_of_the_machine_is_reported_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree.platform, "node", lambda: "my-box")
    runs = finished(tmp_path / "home", "Offline", roles=("performance", "accuracy"))
    log = runs.entries["Offline"].runs["performance"].folder / SUMMARY
    log.write_text("loaded /data/my pictures/a.jpg on my-box, not my-box-2\n1/2 http://a/b/c\n")
    with (log.parent / DETAIL).open("a") as file:
        file.write(entry("loadgen_file_sha1", {"/bindings/c_api.cc": "0a"}))

    written = write_tree(runs, about(division="open"), tmp_path / "out", None)

    place = tmp_path / "out/open/Org/results/box/resnet50/Offline/performance/run_1" / SUMMARY
    assert private_words(written) == [f"{place}: /data/my", f"{place}: my-box"]
    assert place.read_bytes() == log.read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Nothing was quantised, and nothing calibrated: the model ran in FP32."),
        ({"precision": "bf16"}, "weights were cast from FP32 to BF16"),
        ({"precision": "int8"}, "came quantised to INT8"),
        ({"precision": "int8", "notes": ["calibrated on 500 pictures in the list a.txt"]},
         "on 500 pictures in the list a.txt. No weights were trained."),
        ({"precision": "int8", "notes": ["calibrated on 500 pictures"], "config": {"rules": "closed"}},
         "one of MLCommons' two"),
    ],
)  # fmt: skip
def test_calibration_says_what_was_done(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_tree(finished(tmp_path / "home", **changes), about(), tmp_path / "out", None)

    assert words in (tmp_path / "out/closed/Org/calibration.md").read_text()
