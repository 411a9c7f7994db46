"""What the docs say of result.json is what its schema says, and results are as they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sut.config import read_config_file
from sut.mlperf.audit import Audit
from sut.results.energy import Energy
from sut.results.quiet import Quiet
from sut.results.schema import Accuracy, Agreement, Answers, CpuQuota, Result
from tests.children import CHECKOUT, load_tool
from tests.unit.report_results import a_result

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


@pytest.fixture(scope="module")
def contract() -> ModuleType:
    return load_tool("contract")


def fits(value: Any, schema: Mapping[str, Any], parts: Mapping[str, Any]) -> bool:
    """As JSON Schema has it, as far as the schema of a result makes use of that."""
    if "$ref" in schema:
        return fits(value, parts[schema["$ref"].removeprefix("#/$defs/")], parts)
    if "anyOf" in schema:
        return any(fits(value, each, parts) for each in schema["anyOf"])
    if "const" in schema:
        return bool(value == schema["const"])
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if isinstance(value, list):
        return all(fits(each, schema["items"], parts) for each in value)
    if not isinstance(value, dict):
        return True
    named, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    return set(schema.get("required", ())) <= set(value) and all(
        fits(each, named[key], parts) if key in named else others and (others is True or fits(each, others, parts))
        for key, each in value.items()
    )


def test_page_and_schema_are_those_of_the_code(contract: ModuleType) -> None:
    remedy = "run tools/contract.py"
    page = contract.PAGE.read_text(encoding="utf-8")
    usage = contract.USAGE.read_text(encoding="utf-8")

    assert page == contract.page_text(page), remedy
    assert contract.SCHEMA.read_text(encoding="utf-8") == contract.schema_text(), remedy
    assert usage == contract.usage_text(usage), remedy
    assert contract.CONFIG.read_text(encoding="utf-8") == contract.config_text(), remedy


@pytest.mark.parametrize("path", sorted((CHECKOUT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_configs_fit_their_schema(contract: ModuleType, path: Path) -> None:
    schema = json.loads(contract.CONFIG.read_text(encoding="utf-8"))
    settings = read_config_file(path)

    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=../docs/config.schema.json\n")
    assert fits(settings | {"lanes": "auto"}, schema, {})
    for wrong in ({"lanes": "two"}, {"fold": 1}, {"laness": 2}, {"matrix": []}):
        assert not fits(settings | wrong, schema, {}), wrong


def test_every_field_is_explained_in_a_row_of_one_line(contract: ModuleType) -> None:
    rows = contract.page_text("<!-- fields:begin -->\n<!-- fields:end -->").splitlines()[1:-1]

    assert [row for row in rows if "|  |" in row] == []
    assert [row for row in rows if (row[:2], row[-2:], row.count(" | ")) != ("| ", " |", 2)] == []


FULL = {
    "agreement": Agreement(value=0.97, low=0.95, high=0.98, count=1000, source="demo", words="97 %"),
    "answers": Answers(checked=4, largest_batch=8, batch_dependent_share=0.0, near_ties=0),
    "audit": Audit(file="audit.config", test="TEST01", settings={"mode": 2}),
    "cpu_quota": CpuQuota(cores=1.5, periods=10, throttled_periods=0),
    "energy": {"cpu": Energy("", 0.0, None, None)},
    "quiet": Quiet(0.0, None, 0.0, before=Quiet(0.0, 0.0, 0.0)),
}
RESULTS = {
    "performance": {},
    "accuracy": {"mode": "accuracy", "metric": None, "accuracy": Accuracy(name="top1", value=1.0, count=11)},
    "failed": {"valid": False, "invalid_reasons": ["it broke"], "first_error": "a.jpg", "latency_ns": {"p99": None}},
    "with all parts": FULL,
}


@pytest.mark.parametrize("changes", RESULTS.values(), ids=RESULTS)
def test_results_fit_the_schema(contract: ModuleType, changes: dict[str, Any]) -> None:
    schema = json.loads(contract.SCHEMA.read_text(encoding="utf-8"))
    result = a_result(**changes)
    written = json.loads(result.to_json())

    assert fits(written, schema, schema["$defs"])
    assert Result.model_validate_json(result.to_json(), strict=True) == result
    for wrong in ({"schema": 2}, {"samples": "24"}, {"unknown": 1}, {"metric": {"name": "m"}}, {"notes": [1]}):
        assert not fits(written | wrong, schema, schema["$defs"]), wrong
