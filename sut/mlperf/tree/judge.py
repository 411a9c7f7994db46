"""Whether a submission's tree is whole and sound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from sut.mlperf import official
from sut.mlperf.accuracy import SCORE_FILE, SCORE_LINES
from sut.mlperf.finding import Finding
from sut.mlperf.official import Benchmark
from sut.mlperf.tree.accuracy import judge_accuracy
from sut.mlperf.tree.audits import judge_audit
from sut.mlperf.tree.conf import judge_conf
from sut.mlperf.tree.layout import DIVISIONS, Kind, Tree, read_tree
from sut.mlperf.tree.place import Place
from sut.mlperf.tree.results import Log, judge_files, judge_performance
from sut.mlperf.tree.rules import TreeRule
from sut.mlperf.tree.systems import DATACENTER_EDGE, System, judge_system

REHEARSAL = "REHEARSAL, not a submission"
"""What a tree that was made to rehearse says of itself, in every README.md and in ``sw_notes``."""
_WORD = re.compile(r"\bREHEARSAL\b")
_KNOWN = "resnet, resnet50*, mobilenet*, efficientnet*, yolo-95 or yolo-99"
_MAPPING = "model_mapping.json"
_FREE = ("calibration.md", "README.md", "LICENSE", "documentation")
"""What a submitter may have beside the rest."""


def judge_tree(root: Path) -> list[Finding]:
    """What is wrong or odd with the tree below ``root``, the folder that holds ``closed``, ``open`` or ``network``.

    Findings name files from ``root``, and come in the order of their paths. Raises ``ValueError`` where there is no
    tree.
    """
    tree = read_tree(root)
    logs: list[Log] = []
    for division in DIVISIONS:
        if tree.kind(division) is None or not tree.has_folder(division, "a folder with submitters"):
            continue
        submitters = tree.names(division, Kind.FOLDER)
        if not submitters:
            tree.add(TreeRule.MISSING, division, "folder", None, "a submitter's folder")
        tree.only(division, submitters)
        for submitter in submitters:
            logs += _judge_submitter(tree, division, submitter)
    _judge_same(tree, logs)
    _judge_rehearsal(tree)
    return sorted(tree.found, key=lambda finding: finding.file)


def _judge_submitter(tree: Tree, division: str, submitter: str) -> Iterator[Log]:
    home = f"{division}/{submitter}"
    tree.only(home, ("results", "src", "systems", *((_MAPPING,) if division == "open" else ()), *_FREE))
    if division != "open":
        tree.text(f"{home}/calibration.md")
    mapping = _mapping(tree, f"{home}/{_MAPPING}") if division == "open" else {}
    results, systems = f"{home}/results", f"{home}/systems"
    tree.has_folder(f"{home}/src", "a folder with what was run")
    if not tree.has_folder(results, "a folder with results"):
        return
    names = tree.names(results, Kind.FOLDER)
    if not names:
        tree.add(TreeRule.MISSING, results, "folder", None, "a system's folder")
    tree.only(results, names)
    described = tree.has_folder(systems, "a folder with a file for each system")
    if described:
        tree.only(systems, [f"{name}.json" for name in names])
    for name in names:
        path = f"{systems}/{name}.json"
        system = judge_system(tree, path, division, submitter) if described else System.unknown(division)
        yield from _judge_results(tree, division, f"{results}/{name}", system, mapping)
    for model in sorted({model for name in names for model in tree.names(f"{results}/{name}", Kind.FOLDER)}):
        if tree.kind(f"{home}/src") is Kind.FOLDER:
            path = f"{home}/src/{model}/README.md"
            tree.said.append((path, "text", tree.text(path) or ""))


def _judge_results(tree: Tree, division: str, folder: str, system: System, mapping: dict[str, str]) -> Iterator[Log]:
    models = tree.names(folder, Kind.FOLDER)
    if not models:
        tree.add(TreeRule.MISSING, folder, "folder", None, "a model's folder")
    tree.only(folder, models)
    for model in models:
        path = f"{folder}/{model}"
        benchmark = _benchmark(tree, division, path, mapping)
        for scenario in _scenarios(tree, path, division, system.kind, benchmark):
            yield from _judge_scenario(tree, Place(division, folder, system, path, benchmark, scenario))


def _benchmark(tree: Tree, division: str, path: str, mapping: dict[str, str]) -> Benchmark:
    """The benchmark that a model's folder is judged by: by its name, in the open division also by what it is mapped to.

    One that is unknown is judged by the rules of the first that has such a score.
    """
    name, known = path.rpartition("/")[2], official.BENCHMARKS.values()
    found = [each for each in known if re.fullmatch(each.folders, name)]
    found += [each for each in known if each.judged_as == mapping.get(name)]
    if not found and name not in mapping:  # what it is mapped to is told already
        tree.add(TreeRule.MODEL, path, "name", name, _KNOWN + f", or one of {_MAPPING}" * (division == "open"))
    if found and found[0].retired and division != "open":
        tree.add(TreeRule.MODEL, path, "name", f"{name}, which is retired", _KNOWN)
    elif found and division == "network" and not found[0].datacenter:
        suite = " or ".join(each.name for each in known if each.datacenter and not each.retired)
        tree.add(TreeRule.MODEL, path, "name", f"{name}, which is in no datacenter", suite)
    return found[0] if found else _alike(tree, path)


def _alike(tree: Tree, path: str) -> Benchmark:
    """The first benchmark with such scores as the scenarios of a model have."""
    files = [f"{path}/{scenario}/accuracy/{SCORE_FILE}" for scenario in tree.names(path, Kind.FOLDER)]
    texts = [tree.text(file) or "" for file in files if tree.kind(file) is Kind.FILE]
    known = official.BENCHMARKS.values()
    scored = (each for text in texts for each in known if SCORE_LINES[each.metric][0].search(text))
    return next(scored, official.BENCHMARKS[official.MODEL])


def _scenarios(tree: Tree, path: str, division: str, kind: str | None, benchmark: Benchmark) -> list[str]:
    """The scenarios that a model's folder has. Every folder in it is one to MLCommons' tools."""
    there, legal = tree.names(path, Kind.FOLDER), benchmark.scenarios
    tree.only(path, there)
    known = [name for name in there if name in legal]
    for name in there:
        if name not in legal:
            tree.add(TreeRule.STRAY, f"{path}/{name}", "name", name, "a scenario: " + ", ".join(legal))
    if division == "open":
        if not known:
            tree.add(TreeRule.SCENARIOS, path, "folder", "none", "one or more of " + ", ".join(legal))
        return known
    if division == "network":
        wanted = benchmark.datacenter or tuple(known)
    else:
        wanted = legal if kind in DATACENTER_EDGE else official.EDGE
    if (kind is not None or division == "network") and {*known} != {*wanted}:
        tree.add(TreeRule.SCENARIOS, path, "folder", ", ".join(known) or "none", ", ".join(wanted))
    return known


def _judge_scenario(tree: Tree, place: Place) -> Iterator[Log]:
    judge_files(tree, place)
    performance = judge_performance(tree, place, "performance", place.path)
    if performance is not None:
        judge_conf(tree, f"{place.path}/user.conf", performance)
    logs = [performance, judge_accuracy(tree, place)]
    if place.closed:
        logs += [judge_audit(tree, place, test, performance) for test in place.benchmark.audits]
    yield from (log for log in logs if log is not None)


def _mapping(tree: Tree, path: str) -> dict[str, str]:
    if tree.kind(path) is None or (mapping := tree.json(path)) is None:
        return {}
    known = [each.judged_as for each in official.BENCHMARKS.values()]
    for name, model in mapping.items():
        if model not in known:
            tree.add(TreeRule.VALUE, path, name, model, " or ".join(known))
    return {name: model for name, model in mapping.items() if isinstance(model, str)}


def _judge_same(tree: Tree, logs: list[Log]) -> None:
    """Logs that are one run's: byte for byte, or begun by one system in the same millisecond."""
    sources = {(log.place.model, log.role, log.scenario, log.digest) for log in logs if not log.inferred}
    own = [
        log for log in logs if (log.place.model, log.role, log.scenario, log.digest) not in sources or not log.inferred
    ]
    named: set[str] = set()
    began = "power_begin"
    for field, keys in (
        ("file", [(log.digest,) for log in own]),
        (began, [(log.place.results, str(log.detail.values[began])) for log in own]),
    ):
        together = sorted(zip(keys, own, strict=True), key=lambda pair: (pair[0], pair[1].path))
        for (key, log), (other_key, other) in pairwise(together):
            if key == other_key and other.path not in named:
                named.add(other.path)
                tree.add(TreeRule.SAME, other.path, field, f"that of {log.path}", "a run of its own")


def _judge_rehearsal(tree: Tree) -> None:
    for path, field, text in sorted(tree.said):
        if _WORD.search(text):
            tree.add(TreeRule.REHEARSAL, path, field, text.strip(), "a submission")
            return
