"""``sut report``, and the page that ``sut run`` leaves: where it is, what is skipped by name, what it never breaks."""

from __future__ import annotations

import json
from pathlib import Path

from tests.children import CHECKOUT, Finished, run_python, run_sut
from tests.integration.browser import look_at
from tests.unit.report_results import a_comparison, a_result

QUICK = ("--backend", "null", "--scenario", "Offline", "--time", "0.1")


def report(cwd: Path, *arguments: str | Path) -> Finished:
    return run_python("-m", "sut", "report", *arguments, cwd=cwd)


def put(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(text)
    return folder / "result.json"


def test_a_run_ends_by_writing_a_page_and_says_where(tmp_path: Path) -> None:
    done = run_sut(*QUICK, cwd=tmp_path)

    assert done.code == 0, done.err
    [page] = (tmp_path / "output").rglob("report.html")
    assert done.out.splitlines()[-1] == f"page: {page}"
    [result] = page.parent.rglob("result.json")
    assert result.parent.parent.parent == page.parent
    seen = look_at(page, tmp_path)
    assert (seen.errors, seen.wide) == ([], [])
    told = {of: json.loads(value) for of, value, _, _ in seen.figures if of}
    assert told["0:samples_per_second"] == json.loads(result.read_text())["samples_per_second"]


def test_a_page_that_cannot_be_written_is_a_line_and_the_run_counts(tmp_path: Path) -> None:
    run_sut(*QUICK, cwd=tmp_path)
    [page] = (tmp_path / "output").rglob("report.html")
    page.unlink()
    (page / "in the way").mkdir(parents=True)

    done = run_sut(*QUICK, cwd=tmp_path)

    assert done.code == 0
    assert "page: " not in done.out
    assert f"{page}: no page was written: " in done.err and "Traceback" not in done.err


def test_json_is_alone_on_stdout(tmp_path: Path) -> None:
    done = run_sut(*QUICK, "--json", cwd=tmp_path)

    assert json.loads(done.out)["command"] == "run"
    assert len(list((tmp_path / "output").rglob("report.html"))) == 1


def test_where_nothing_ran_there_is_no_page(tmp_path: Path) -> None:
    done = run_sut(*QUICK, "--backend", "nosuch", cwd=tmp_path)

    assert done.code != 0
    assert list(tmp_path.rglob("report.html")) == []


def test_what_cannot_be_read_is_named_and_the_rest_shown(tmp_path: Path) -> None:
    output = tmp_path / "output"
    sound = a_result().to_json()
    put(output / "sound", sound)
    half = put(output / "half", sound[: len(sound) // 2])
    other = put(output / "other", json.dumps(json.loads(sound) | {"schema": 7}))
    edited = put(output / "edited", json.dumps(json.loads(sound) | {"samples": "many"}))
    (output / "compare.json").write_text(json.dumps(a_comparison())[:-9])

    done = report(tmp_path)

    assert done.code == 0, done.err
    assert done.out == "page: output/report.html, 1 result\n"
    page = (output / "report.html").read_text()
    for path in (half, other, edited, output / "compare.json"):
        name = path.relative_to(tmp_path)
        assert f"skipped: {name}: " in done.err
        assert f"Skipped: {name}: " in page


def test_files_and_folders_and_a_comparison_make_one_page(tmp_path: Path) -> None:
    result = put(tmp_path / "one", a_result(backend="one").to_json())
    put(tmp_path / "two", a_result(backend="two").to_json())
    (tmp_path / "two/compare.json").write_text(json.dumps(a_comparison()))

    done = report(tmp_path, result, "two", "-o", "page.html")

    assert (done.code, done.out, done.err) == (0, "page: page.html, 2 results\n", "")
    text = (tmp_path / "page.html").read_text()
    assert a_comparison()["sentence"] in text
    assert 'data-of="1:' in text


def test_the_last_comparison_decides_and_earlier_ones_are_left_out(tmp_path: Path) -> None:
    sentences = {"now": "", "now.20260101T000000": ", as of before", ".git": ", of nobody"}
    for folder, more in sentences.items():
        (tmp_path / folder).mkdir()
        told = a_comparison() | {"sentence": a_comparison()["sentence"] + more}
        (tmp_path / folder / "compare.json").write_text(json.dumps(told))

    done = report(tmp_path, ".", "now/compare.json")

    left_out = "left out: 1 folder of earlier results; name one to see it\n"
    assert (done.code, done.out, done.err) == (0, "page: report.html, 0 results\n", left_out)
    page = (tmp_path / "report.html").read_text()
    assert page.count(a_comparison()["sentence"]) == 1
    assert ", as of before" not in page and ", of nobody" not in page
    named = report(tmp_path, "now.20260101T000000", "-o", "named.html")
    assert named.code == 0 and ", as of before" in (tmp_path / "named.html").read_text()


def test_a_comparison_alone_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps(a_comparison()))

    done = report(tmp_path, "compare.json")

    assert (done.code, done.out, done.err) == (0, "page: report.html, 0 results\n", "")


def test_an_installed_package_has_all_that_a_page_needs(tmp_path: Path) -> None:
    put(tmp_path / "output/sound", a_result().to_json())
    built = run_python(CHECKOUT / "setup.py", "-q", "build", "-b", tmp_path / "build", cwd=CHECKOUT)
    assert built.code == 0, built.err

    done = run_python("-c", INSTALLED, tmp_path / "build/lib", cwd=tmp_path)

    assert done.code == 0, done.err
    assert "</html>" in (tmp_path / "output/report.html").read_text()


INSTALLED = """
import sys
sys.path.insert(0, sys.argv.pop())
import sut.__main__
assert sut.__file__.startswith(sys.path[0])
sys.argv.append("report")
sys.exit(sut.__main__.main())
"""


def test_without_results_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()

    done = report(tmp_path)

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: output: no result.json to be read") and done.err.count("\n") == 1


def test_a_page_that_nobody_may_write_is_one_line(tmp_path: Path) -> None:
    put(tmp_path / "output/sound", a_result().to_json())

    done = report(tmp_path, "output", "-o", "/proc/report.html")

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: /proc/report.html: cannot be written (") and done.err.count("\n") == 1


def test_a_page_without_a_name_is_one_line(tmp_path: Path) -> None:
    put(tmp_path / "output/sound", a_result().to_json())

    done = report(tmp_path, "output", "-o", "")

    assert (done.code, done.out) == (1, "")
    assert done.err == "error: --output is '.', expected the name of the page; for example --output report.html\n"
