"""What processes tell each other: the same on both sides, and nothing else is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sut.config import RunConfig
from sut.errors import ExitCode
from sut.mlperf.audit import Audit
from sut.models.preparation import Prepared
from sut.pipeline.choice import Choice
from sut.pipeline.ledger import LedgerShape
from sut.process.messages import STEPS, Failed, Step, from_line, from_text, to_line, to_text
from sut.results.quiet import Quiet
from sut.results.schema import Answers, CpuQuota, Parity
from sut.run.events import STORY, Checked, Event, Failure, Finished, Flushed, Loaded, Orders, Planned, Preprocessed
from sut.run.planning import Plan
from sut.run.pulse import Clock, Phase
from sut.run.timing import Pace
from sut.run.tried import Settled

QUIET = Quiet(0.1, None, 0.0, before=Quiet(None, None, None))
PLANNED = Planned(
    plan=Plan("Offline", "performance", 1, 24, 0.3, 1000, trace=True, notes=("one", "caf\u00e9 \udcff")),
    settled=Settled(Choice(2, 1, 4), "guessed", {"model": None, "cores": [2, 1.5]}),
    hint="throughput",
    calibration=Pace(7, 9, samples_per_second=1e5, batch_ns={1: 7, 4: 9}),
    shape=LedgerShape.of(24, 9, ("infer",), ("decode",), indexed=False),
    asked={"effective_scenario": "Offline", "requested_min_duration_ms": 300, "requested_offline_expected_qps": 8.5},
    rules_broken=("short",),
    cold_start_s={"import": 0.5},
    audit=Audit(file="audit.config", test=None, settings={"mode": 2}),
    overload=None,
    fitting_qps=None,
    min_query_count=1,
    server_target_qps=1.0,
)
STORY_OF_ALL: list[Event] = [
    Phase("samples"),
    Step(7, 11),
    Clock(-5_000_000_000),
    Loaded({"a.onnx": "0a"}, {"device": "cpu", "details": {"threads": 2}}, "", "1.0", None),
    Preprocessed(Parity(max_levels=0, mean_levels=0.0, share_over_1=0.0, psnr_db=None, pictures=2)),
    Checked(Answers(checked=4, largest_batch=8, batch_dependent_share=0.25, near_ties=0), depend=True),
    PLANNED,
    Failure("0001.jpg: out of luck"),
    Flushed(),
    Finished(0.25, None, 2**33, None, CpuQuota(cores=1.5, periods=9, throttled_periods=0), QUIET, (), False, 2**70, ()),
    Failed(ExitCode.SETUP, "not there", traceback="in a file named \udcff"),
]


@pytest.mark.parametrize("event", STORY_OF_ALL, ids=lambda event: event.event)
def test_an_event_is_the_same_on_the_other_side(event: Event) -> None:
    assert from_line(STORY, to_line(event)) == event


@pytest.mark.parametrize("quantised_already", [False, True])
def test_orders_are_the_same_and_leave_open_what_was(quantised_already: bool) -> None:
    config = RunConfig(model="caf\u00e9 \udcff.onnx", lanes=None, batching="fifo")
    prepared = Prepared(
        Path("a \udcff.xml"),
        Path("b.onnx"),
        Path("c.onnx"),
        "int8",
        ("one", "two"),
        quantised_already,
        sha256="0c",
        weights="trained",
        sources={Path("c.onnx"): "0c"},
        loads={Path("a.xml"): "0a", Path("a.bin"): "0b"},
    )
    orders = Orders(config, prepared, Path("out"), 5, 0.25, "4f1c")

    found = from_text(Orders, to_text(orders))

    assert found == orders
    assert found.config.model_fields_set == config.model_fields_set


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("noise", "not a line of JSON: b'noise'"),
        ("\udcff\udcfe", r"not a line of JSON: b'\xff\xfe'"),
        ("7", "not a line of JSON: b'7'"),
        ("", "not a line of JSON: b''"),
        ("[" * 100_000, "not a line of JSON: b'[[["),
        ('{"done": 1, "total": 2}', "not one of its events: Unable to extract tag"),
        ('{"event": "leap"}', "not one of its events: Input tag 'leap' found"),
        ('{"event": ["step"], "done": 1, "total": 2}', "not one of its events: "),
        ('{"event": "step", "done": 1}', "not one of its events: step.total: Field required: b'{"),
        ('{"event": "step", "done": 1, "total": 2, "left": 1}', "not one of its events: step.left: Unexpected keyword"),
        ('{"event": "step", "done": "one", "total": 2}', "not one of its events: step.done: Input should be a valid"),
        ('{"event": "failed", "code": 77, "message": ""}', "not one of its events: failed.code: Input should be "),
    ],
)
def test_what_is_no_event_is_named_in_one_line(line: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        from_line(STEPS, line.encode("utf-8", "surrogateescape"))

    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("nested", ["plan", "settled", "calibration", "shape", "audit"])
def test_nothing_is_taken_that_is_too_much_deep_inside(nested: str) -> None:
    line = to_line(PLANNED).replace(f'"{nested}": {{'.encode(), f'"{nested}": {{"more": 1, '.encode(), 1)

    with pytest.raises(ValueError, match=rf"planned\.{nested}\.more: "):
        from_line(STORY, line)


def test_steps_are_read_where_nothing_else_is_told() -> None:
    told: Any = from_line(STEPS, to_line(Step(3, 300)))

    assert told == Step(3, 300)
