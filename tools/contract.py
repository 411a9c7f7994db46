"""Writes what docs say of results and options from the code: two tables and two JSON Schemas.

.venv/bin/python -P tools/contract.py     after a field of sut/results/schema.py, or its docstring, was changed, or what
                                          sut/config says of a setting: docs/contract.md and docs/result.schema.json are
                                          of results, docs/usage.md and docs/config.schema.json of options
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pydantic.json_schema import GenerateJsonSchema  # noqa: E402

from sut.cli.options import options  # noqa: E402
from sut.config import AUTO, OPTIONS, RunConfig  # noqa: E402
from sut.results.schema import Result  # noqa: E402
from sut.studies.ladder.rungs import Ladder  # noqa: E402

PAGE = ROOT / "docs/contract.md"
SCHEMA = ROOT / "docs/result.schema.json"
USAGE = ROOT / "docs/usage.md"
CONFIG = ROOT / "docs/config.schema.json"
_TABLE = re.compile(r"(?<=:begin -->\n).*(?=<!-- \w+:end -->)", re.DOTALL)
_IN_JSON = {"``": "`", "None": "null", "True": "true", "False": "false"}


class _Untitled(GenerateJsonSchema):
    """Without titles, which would repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Described(_Untitled):
    """With what docstrings below fields say of them. No command needs that, so that none has pydantic look for it."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        return _with_docstrings(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        return _with_docstrings(super().dataclass_schema(schema), schema["cls"])


def _with_docstrings(schema: dict[str, Any], kind: type) -> dict[str, Any]:
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in itertools.pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                shown = name.removesuffix("_")  # a name that Python has already, as in a result's file
                schema["properties"][shown]["description"] = inspect.cleandoc(text)
    return schema


def schema_text() -> str:
    """The JSON Schema of a result, its docstrings in the words of JSON."""
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **Result.model_json_schema(schema_generator=_Described)}
    return re.sub("|".join(_IN_JSON), lambda word: _IN_JSON[word[0]], json.dumps(schema, indent=1)) + "\n"


def page_text(page: str) -> str:
    """docs/contract.md with the table as the schema has it now."""
    schema = json.loads(schema_text())
    rows = "".join(f"| {name} | {kind} | {words} |\n" for name, kind, words in _rows(schema, schema["$defs"]))
    return _TABLE.sub(lambda _: f"| field | type | |\n| --- | --- | --- |\n{rows}", page)


def _rows(part: Mapping[str, Any], parts: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning, in one line, of each field, those of an inner part right behind it."""
    for name, field in part["properties"].items():
        kinds = field.get("anyOf", [field])
        yield f"`{within}{name}`", " or ".join(map(_kind, kinds)), " ".join(field.get("description", "").split())
        entries = field.get("additionalProperties")
        if isinstance(entries, dict):
            entries = entries.get("anyOf", [entries])[0]  # the others have less
        inside = [(entries, "*."), *((kind.get("items"), "*.") for kind in kinds)]
        for each, path in [*((kind, "") for kind in kinds), *inside]:
            reference = each.get("$ref", "") if isinstance(each, dict) else ""
            inner = parts.get(reference.rpartition("/")[2], part)
            if inner is not part:  # one that holds its like is told once
                yield from _rows(inner, parts, f"{within}{name}.{path}")


def _kind(field: Mapping[str, Any]) -> str:
    """A type in words, such as ``list of string``."""
    kind = str(field.get("const", field.get("type", "object"))).replace("array", "list")
    items = field.get("items") or field.get("additionalProperties")
    return f"{kind} of {_kind(items)}" if isinstance(items, dict) and "type" in items else kind


def config_text() -> str:
    """The JSON Schema of a file for ``--config``: the settings of a run, and what compare and ladder take besides."""
    schema = RunConfig.model_json_schema(schema_generator=_Untitled)
    settings = schema["properties"]
    for name in AUTO:
        settings[name]["anyOf"].append({"const": "auto"})
    words = {"type": "string"}
    told = options()["scenario"].help
    settings["scenario"] = {"anyOf": [words, {"type": "array", "items": words}], "description": told}
    settings["matrix"] = {"type": "object", "description": "What sut compare varies: settings, each with its values."}
    ladder = Ladder.model_json_schema(schema_generator=_Untitled)["properties"]
    ladder["rungs"] = {"type": "array", "items": {"type": "object"}}  # docs/ladder.md has what is in one
    about = {"description": "Of sut study ladder: docs/ladder.md."}
    settings |= {name: each | about for name, each in ladder.items()}
    schema |= {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "RunConfig",
        "description": "A file for --config.",
    }
    return json.dumps(schema, indent=1) + "\n"


def usage_text(page: str) -> str:
    """docs/usage.md with a line for each option, then for the settings that are none."""
    rows = []
    for name, option in {**options(), **OPTIONS, **options()}.items():
        word = "" if option.takes is bool else f" <{option.unit or option.takes.__name__}>".replace("|", "\\|")
        flag = f"`{option.flag}{word}`" if option.flag else ""
        default = RunConfig.model_fields[name].default if name in OPTIONS else None
        setting = f"`{name}{f': {default}' if default else ''}`" if name in OPTIONS else ""
        rows.append(f"| {flag} | {setting} | {option.help} | {option.only.place() if option.only else ''} |\n")
    return _TABLE.sub(
        lambda _: f"| option | setting, default | | only |\n| --- | --- | --- | --- |\n{''.join(rows)}", page
    )


def main() -> None:
    """Write all four."""
    CONFIG.write_text(config_text(), encoding="utf-8")
    USAGE.write_text(usage_text(USAGE.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
