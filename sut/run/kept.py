"""A finished run stays, by ``--rules closed`` where it is official: what was interrupted goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sut.config import RunConfig
from sut.errors import cut, one_line
from sut.mlperf.accuracy import read_accuracy_log
from sut.mlperf.audit import Audit
from sut.mlperf.check_log import check_log
from sut.mlperf.finding import Severity
from sut.mlperf.logs import ACCURACY, OFFICIAL_SEEDS, read_detail, read_summary
from sut.mlperf.rules import audit_rule
from sut.mlperf.short import QUOTA, rule_name
from sut.pipeline.assembly import Assembly
from sut.results.collected import read_result
from sut.results.machine import differs, system_facts
from sut.results.schema import FILE, Result
from sut.run.outcome import versions
from sut.text import Say
from sut.version import NAME, own_version

_MAY_DIFFER = frozenset({"output", "overwrite", "debug", "watchdog_s", "cache", "cache_dir", "audit_conf", "trace"})
"""Settings that change nothing of what is measured; of an audit.config its content counts."""


def staying(
    configs: Sequence[RunConfig],
    audits: Sequence[Audit | None],
    folders: Sequence[Path],
    parts: Assembly,
    say: Say,
    unofficial: bool = False,
) -> dict[int, Result]:
    """The results of runs that stay as they are, by the run's number; ``say`` is told of each.

    ``audits`` are what the runs obey, ``folders`` where they lie. Those by ``--rules`` stay where they are
    official; others stay where ``unofficial`` ones will do.
    """
    if not (unofficial or configs[0].rules is not None) or configs[0].overwrite:
        return {}
    found = {}
    for at, (config, audit, folder) in enumerate(zip(configs, audits, folders, strict=True)):
        result, line = _kept(folder, config, audit, parts, unofficial)
        if line is not None:
            say(line)
        if result is not None:
            found[at] = result
    return found


def _kept(
    directory: Path, config: RunConfig, audit: Audit | None, parts: Assembly, unofficial: bool
) -> tuple[Result | None, str | None]:
    """The result in ``directory`` where it stands for this very run, and a line on why it is kept or is not.

    Neither where there is none, and no line on one that did not come to its end.
    """
    file, name = directory / FILE, f"{config.scenario} {directory.name}"
    if not os.path.lexists(file):
        return None, None
    try:
        result = read_result(file)
        if not _is_done(result):
            return None, None
        rule = None if unofficial else _unofficial(result)
        why = _other(result, config, audit, parts) or rule or _unsound(directory, result)
        finished = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except (OSError, ValueError) as error:
        why = one_line(error)
    if why is not None:
        return None, f"{name}: run again, as the earlier run does not stand for it: {cut(why)}"
    return result, f"{name}: kept, finished {finished}; --overwrite runs it again"


def _is_done(result: Result) -> bool:
    """Whether a run came to its end and counts: VALID, and of accuracy scored, and no target missed."""
    if result.failed or result.invalid_reasons:
        return False
    if result.mode != "accuracy":
        return result.valid is True
    return result.accuracy is not None and result.accuracy.met is not False


def _other(result: Result, config: RunConfig, audit: Audit | None, parts: Assembly) -> str | None:
    """What makes it the result of another run, if anything does."""
    was, now = dict(result.config), config.model_dump(mode="json")
    changed = [name for name in now if name not in _MAY_DIFFER and was.get(name) != now[name]]
    if changed:
        return f"{changed[0]} is {now[changed[0]]}, and was {was.get(changed[0])}"
    if (audit and audit.settings) != (result.audit and dict(result.audit.settings)):
        return "it obeyed another audit.config"
    since = datetime.fromisoformat(result.started).timestamp() + 1  # it is cut to a whole second
    for path in (config.user_conf, config.mlperf_conf, config.calibration_list):
        if path is not None and path.stat().st_ctime >= since:
            return f"{path} has changed since"
    model = parts.model
    if model is not None and (model.sha256, model.loaded_sha256) != (result.model_sha256, dict(result.loaded_sha256)):
        return f"the model was another: SHA-256 {result.model_sha256}, now {model.sha256}"
    if apart := differs(result.system, system_facts()):
        return f"it is of another machine ({apart[0]})"
    now_versions = {NAME: own_version(), **versions(config, parts.spec.name)}
    for name in sorted(now_versions | dict(result.versions)):
        if now_versions.get(name) != result.versions.get(name):
            return f"{name} is {now_versions.get(name)}, and was {result.versions.get(name)}"
    return None


def _unofficial(result: Result) -> str | None:
    """The first rule that it breaks, but for being one of MLPerf's audits, or on cores that a quota bounds."""
    own = {audit_rule(result.audit)} if result.audit is not None and result.audit.test is not None else set()
    broken = [rule for rule in result.rules_broken if rule not in own and rule_name(rule) != QUOTA]
    return broken[0] if broken else None


def _unsound(directory: Path, result: Result) -> str | None:
    """What is wrong with its logs, if anything is: they are what is submitted.

    Raises ``ValueError`` for answers that cannot be read.
    """
    findings = check_log(read_detail(directory), read_summary(directory), seeds=[OFFICIAL_SEEDS])
    if bad := [finding for finding in findings if finding.severity is not Severity.DOUBT]:
        return str(bad[0])
    samples = result.audit is not None and "accuracy_log_sampling_target" in result.audit.settings
    if result.mode == "accuracy" or samples:
        read_accuracy_log(directory / ACCURACY)
    return None
