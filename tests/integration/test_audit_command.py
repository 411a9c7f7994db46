"""``sut audit``: systems that are sound, that answer wrongly and that remember, and audits that are killed."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.children import Finished
from tests.integration.support import Sut

pytestmark = pytest.mark.slow


def finished(sut: Sut, backend: str, *modes: str, scenario: str = "SingleStream") -> Path:
    """The folder of finished runs of a backend, of a second each."""
    pictures = sut.cwd / "pictures"
    if not pictures.exists():
        sut.pictures()
    arguments = ["--backend", backend, "--dataset-path", pictures, "--scenario", scenario, "--time", "1"]
    for mode in modes or ("performance",):
        done = sut.run(*arguments, *(["--accuracy"] if mode == "accuracy" else []))
        assert (done.code, done.errors) == (0, [])
    [home] = sut.output.glob("*/*")
    return home


def rows(done: Finished) -> dict[str, Any]:
    return {row["test"]: row for row in json.loads(done.out)["rows"]}


def test_a_sound_system_passes_both_in_a_rehearsal(sut: Sut) -> None:
    home = finished(sut, "plain", "performance", "accuracy")

    done = sut.run(home, "--rehearse", "--json", command="audit")

    assert (done.code, done.errors, done.left) == (0, [], [])
    found = rows(done)
    assert [found[test]["passed"] for test in ("TEST01", "TEST04")] == [True, True]
    answers = found["TEST01"]["answers"]
    assert answers["accuracy_entries"] == 12
    assert answers["entries"] == answers["known"] == done.results[_place(sut, home, "TEST01")]["samples"]
    assert sorted(path.name for path in home.iterdir()) == ["SingleStream", "report.html"]
    for test in ("TEST01", "TEST04"):
        result = done.results[_place(sut, home, test)]
        assert (result["audit"]["test"], result["valid"]) == (test, True)
        text = (home / "SingleStream" / test / "verify_performance.txt").read_text()
        assert text.startswith(f"Reference score = {found[test]['reference']}\nTest score = {found[test]['audit']}\n")
    assert (home / "SingleStream/TEST01/verify_accuracy.txt").read_text().endswith("TEST PASS\n")
    assert (home / "SingleStream/TEST01/accuracy.txt").read_text() == "accuracy=8.333%, good=1, total=12\n"

    again = sut.run(home / "SingleStream", "--verify-only", "--rehearse", "--test", "TEST01", command="audit")

    assert (again.code, again.errors) == (0, [])
    heading = " ".join(again.out.splitlines()[0].split())
    assert heading == "scenario test verdict reference audit ratio same answers"
    assert again.out.splitlines()[1].split()[:3] == ["SingleStream", "TEST01", "passed"]
    assert max(map(len, again.out.splitlines())) <= 80

    file = home / "SingleStream/TEST01/result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_sha256": "ab" * 32}))

    other = sut.run(home, "--verify-only", "--rehearse", "--test", "TEST01", command="audit")

    assert other.code == 4
    assert "model_sha256: got abab" in " ".join(other.out.split())


def test_one_wrong_label_among_those_that_are_sampled_fails_test01(sut: Sut) -> None:
    home = finished(sut, "wrong-once", "performance", "accuracy")

    done = sut.run(home, "--rehearse", "--test", "TEST01", "--json", command="audit")

    assert (done.code, done.errors) == (4, [])
    row = rows(done)["TEST01"]
    [finding] = [each for each in row["findings"] if each["rule"] == "an answer is not that of the accuracy run"]
    assert (row["passed"], row["answers"]["mismatches"]) == (False, 1)
    assert (finding["got"], finding["expected"]) == ("1", "0, as the accuracy run")
    assert finding["field"] in {f"sample {white}" for white in range(8, 12)}
    assert (home / "SingleStream/TEST01/verify_accuracy.txt").read_text().endswith("TEST FAIL\n")


def test_a_system_that_answers_at_once_what_it_was_asked_last_fails_test04(sut: Sut) -> None:
    pictures = sut.pictures()
    for number, path in enumerate(sorted(pictures.glob("*.jpg"))):
        path.write_bytes(cv2.imencode(".jpg", np.full((32, 40, 3), 15 * number, np.uint8))[1].tobytes())
    home = finished(sut, "remembers")

    done = sut.run(home, "--test", "TEST04", "--json", command="audit")

    assert (done.code, done.errors) == (4, [])
    row = rows(done)["TEST04"]
    assert row["passed"] is False
    assert row["ratio"] < 0.5
    assert "the score is not that of the performance run" in {each["rule"] for each in row["findings"]}
    assert (home / "SingleStream/TEST04/verify_performance.txt").read_text().endswith("TEST FAIL\n")


def test_what_a_killed_audit_leaves_is_removed_at_the_next_start_with_a_word(sut: Sut) -> None:
    (sut.folder / "go").touch()
    home = finished(sut, "gate")
    for command in ("run", "audit"):
        (sut.folder / "go").unlink()
        (sut.folder / "reached").unlink()
        with sut.started(home, "--test", "TEST04", command="audit") as running:
            running.wait_until(sut.reached)
            running.signal(signal.SIGKILL)
            assert running.finish().left == []
        [stale] = sut.output.rglob("*audit.config")
        (sut.folder / "go").touch()

        if command == "run":
            done = sut.run("--backend", "gate", "--dataset-path", sut.cwd / "pictures", "--time", "1", "--overwrite")
        else:
            done = sut.run(home, "--test", "TEST04", "--rehearse", command="audit")

        assert (done.code, done.errors) == (0, [])
        assert (
            done.err.count(
                f"{stale.relative_to(home)}: removed; a sut audit that was killed had left this audit.config\n"
            )
            == 1
        )
        assert list(sut.output.rglob("*audit.config")) == []


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130)])
def test_an_audit_that_is_interrupted_leaves_no_audit_config(sut: Sut, which: signal.Signals, code: int) -> None:
    (sut.folder / "go").touch()
    home = finished(sut, "gate")
    (sut.folder / "go").unlink()
    (sut.folder / "reached").unlink()

    with sut.started(home, "--test", "TEST04", command="audit") as running:
        running.wait_until(sut.reached)
        assert len(list(sut.output.rglob("*audit.config"))) == 1
        running.signal(which)
        done = running.finish()

    assert (done.code, done.left) == (code, [])
    assert "interrupted after" in done.error
    assert not (home / ".audit").exists()
    assert not (home / "SingleStream/TEST04/verify_performance.txt").exists()


def test_an_audit_whose_run_crashes_leaves_no_audit_config(sut: Sut) -> None:
    (sut.folder / "go").touch()
    home = finished(sut, "killed")
    (sut.folder / "go").unlink()

    done = sut.run(home, "--test", "TEST04", command="audit")

    assert done.code == 3
    assert "was killed by SIGKILL" in done.error
    assert "run failed" in done.out
    assert not (home / ".audit").exists()


def _place(sut: Sut, home: Path, test: str) -> Path:
    return (home / "SingleStream" / test / "result.json").relative_to(sut.output)
