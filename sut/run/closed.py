"""``--rules``: what breaks MLPerf's rules for a division, closed or network, is refused, all of it, before the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sut.config import RunConfig
from sut.errors import InputError, one_line
from sut.mlperf import official
from sut.mlperf.audit import Audit
from sut.mlperf.loadgen import Settings
from sut.mlperf.rules import broken_before, foretold, is_far
from sut.pipeline.assembly import Assembly, assemble
from sut.run.network import on_this_machine
from sut.run.planning import settings_before
from sut.run.reporter import Reporter
from sut.text import Progress, Say


def make(
    configs: Sequence[RunConfig], audits: Sequence[Audit | None], console: Reporter, progress: Progress
) -> Assembly:
    """The parts of runs that differ in scenario and mode only; ``audits`` are what they obey.

    Raises what ``assemble`` does, and ``InputError`` where ``--rules`` refuses one of them.
    """
    first = configs[0]
    if first.rules is None:
        return assemble(first, console.note, progress)
    # The model as it was brought: who that is can be told before it is calibrated for minutes.
    precision = "fp32" if first.precision == "int8" else first.precision
    brought = first.model_copy(update={"precision": precision, "calibration_list": None, "rules": None})
    parts = assemble(brought, console.note, progress)
    refuse(list(zip(configs, audits, strict=True)), parts, console.error)
    same = precision == first.precision
    return replace(parts, config=first) if same else assemble(first, console.note, progress)


def refuse(runs: Sequence[tuple[RunConfig, Audit | None]], parts: Assembly, tell: Say) -> None:
    """Raise ``InputError`` where one of these ``runs`` would break a rule; ``tell`` is told of each rule once.

    ``parts`` are those of the first one, with its model as it was brought; a server is asked what it has. Raises
    ``InputError``, too, for settings files that cannot be read, and what loading raises where no server answers.
    """
    division = runs[0][0].rules
    attested = _attested(parts) if division == "network" else None
    found = [(config.scenario, _broken(config, audit, parts, attested)) for config, audit in runs]
    rules = list(dict.fromkeys(rule for _, broken in found for rule in broken))
    for rule in rules:
        where = list(dict.fromkeys(scenario for scenario, broken in found if rule in broken))
        tell(rule if all(rule in broken for _, broken in found) else f"{', '.join(where)}: {rule}")
    if rules:
        raise InputError(
            f"--rules {division}: nothing was run, as the above would break {len(rules)} "
            f"rule{'s' if len(rules) > 1 else ''} of MLPerf's {division} division: mend it, or leave --rules out"
        )


def _attested(parts: Assembly) -> Mapping[str, Any] | None:
    """What the server says of itself; None where there is none."""
    if not is_far(parts.config, parts.model):
        return None
    with parts.load_backend() as loaded:
        return asdict(loaded.attest())


def _broken(config: RunConfig, audit: Audit | None, parts: Assembly, attested: Mapping[str, Any] | None) -> list[str]:
    """What one of the runs would break, as far as that is known now."""
    settings, _ = settings_before(config, parts.spec.loadgen_model)
    found = settings_broken(config, parts, settings, audit, attested)
    if config.rules == "network":
        found += on_this_machine(config, parts)
    benchmark = official.benchmark_of(parts.spec.name, parts.spec.loadgen_model)
    bound_ms = benchmark.server_bound_ms
    if config.relax_server and config.scenario == "Server" and config.max_latency_s is None and bound_ms:
        found.append(f"relax_server lets Server's latency bound be more than {bound_ms} ms")
    if parts.model is not None and parts.model.quantised:
        found.append(f"{parts.model.source.name} is quantised already: bring the float32 model and --calibration-list")
    elif config.precision == "int8" and not is_far(config, parts.model):
        from sut.models.precision.calibration import check_mlcommons

        try:
            check_mlcommons(config.calibration_list)
        except InputError as error:
            found.append(one_line(error))
    return found


def settings_broken(
    config: RunConfig,
    parts: Assembly,
    settings: Settings,
    audit: Audit | None,
    attested: Mapping[str, Any] | None = None,
) -> list[str]:
    """What a run with these settings of LoadGen's would break; ``attested`` is what its server says of itself."""
    told = foretold(settings, parts.dataset)
    return broken_before(config, parts.spec, parts.model, parts.dataset, told, audit, attested)


def end_where_broken(config: RunConfig, broken: Sequence[str]) -> None:
    """Raise ``InputError`` where a run by ``--rules`` has found a rule broken before LoadGen starts."""
    if broken and config.rules is not None:
        told = "; ".join(dict.fromkeys(broken))
        raise InputError(f"--rules {config.rules}: LoadGen was not started, because of {told}")
