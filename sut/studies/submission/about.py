"""What only a person knows of a submission: one YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    field_validator,
    model_validator,
)

from plugins.registry import suggest
from sut.config import Scenario, read_config_file
from sut.errors import InputError
from sut.mlperf import official
from sut.text import printable, shortened

OWN_FIELDS = ("submitter", "division", "system_type", "status")
"""Fields of systems/SYSTEM.json that are told as such, not below ``fields``."""
FILLED_FIELDS = tuple(name for name in official.SYSTEM_FIELDS if name not in OWN_FIELDS)
"""Those below ``fields`` that must not be empty; in the network division others, too."""
DIVISIONS = ("closed", "open", "network")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_WANTED = "a name of letters, digits, '_', '-' and '.', 100 at the most, not beginning with '-' or '.'"


def folder_name(name: str) -> str:
    """A name as a folder of a submission may have it. Raises ``ValueError`` for any other."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected {_WANTED}")
    return name


def _as_text(value: Any) -> Any:
    """YAML has numbers, where a person means their digits."""
    return str(value) if type(value) in (int, float) else value


_Name = Annotated[str, BeforeValidator(_as_text), AfterValidator(folder_name)]
_Text = Annotated[str, BeforeValidator(_as_text)]


class About(BaseModel):
    """The file's content. What is not told here is taken from the results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    submitter: _Name
    """Name of the organisation, as its folder is called: letters, digits, ``_``, ``-`` and ``.``."""
    division: Literal["closed", "open", "network"]
    """``closed``: MLPerf's model and rules; ``open``: any model, no accuracy floor, no audits; ``network``: as
    ``closed``, of a system behind a network."""
    system: _Name
    """Name of the system, as its folder and file are called."""
    system_type: Literal["edge", "datacenter,edge", "datacenter"] = "edge"
    """Closed: ``datacenter,edge`` adds Server. Network: ``datacenter``, which need not be told."""
    status: Literal["available", "preview", "rdi"] = "available"
    """Whether the system can be bought."""
    scenarios: tuple[Scenario, ...] = ()
    """Which to submit; empty: all that the division asks for, in open all that were run."""
    inferred: Mapping[Scenario, Scenario] = {}
    """Scenarios that are inferred, and from which: ``Offline: SingleStream``. Edge only."""
    model: _Name | None = None
    """Open: name of the model's folder; else the result's own."""
    fields: Mapping[str, _Text] = {}
    """Fields of systems/SYSTEM.json that a program cannot know, or knows wrongly: these win."""

    @field_validator("scenarios")
    @classmethod
    def _each_once(cls, value: tuple[Scenario, ...]) -> tuple[Scenario, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected each scenario once")
        return value

    @field_validator("inferred")
    @classmethod
    def _legal(cls, value: Mapping[Scenario, Scenario]) -> Mapping[Scenario, Scenario]:
        for scenario, source in value.items():
            legal = official.INFERRED.get(scenario, ())
            if source not in legal:
                allowed = f"only from {' or '.join(legal)}" if legal else "from nothing"
                raise ValueError(f"{scenario} can be inferred {allowed}, not from {source}")
            if source in value:
                raise ValueError(f"{scenario} is inferred from {source}, which is inferred itself: name what was run")
        return value

    @field_validator("fields")
    @classmethod
    def _known(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if name in OWN_FIELDS:
                raise ValueError(f"{name} is told beside 'fields', not in it")
            known = (*FILLED_FIELDS, *official.SYSTEM_FREE_FIELDS, *official.SYSTEM_NETWORK_FIELDS)
            if name not in known:
                raise ValueError(f"unknown field '{printable(name)}'; {suggest(name, known)}")
        return value

    @property
    def is_closed(self) -> bool:
        """Whether the rules of the closed division hold: in the network division, too."""
        return self.division != "open"

    @property
    def filled_fields(self) -> tuple[str, ...]:
        """Those below ``fields`` that must not be empty."""
        return (*FILLED_FIELDS, *(official.SYSTEM_NETWORK_FIELDS if self.division == "network" else ()))

    @model_validator(mode="before")
    @classmethod
    def _of_network(cls, told: Any) -> Any:
        """The network division has one type."""
        is_network = isinstance(told, dict) and told.get("division") == "network"
        return {"system_type": "datacenter", **told} if is_network else told

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.division == "network") != (self.system_type == "datacenter"):
            wanted = "datacenter" if self.division == "network" else "edge or datacenter,edge"
            raise ValueError(f"system_type: division {self.division} has {wanted}, got '{self.system_type}'")
        others = [name for name in self.fields if name in official.SYSTEM_NETWORK_FIELDS]
        if others and self.division != "network":
            raise ValueError(f"fields.{others[0]}: that is of division network; leave it out")
        if self.inferred and self.system_type != "edge":
            raise ValueError("inferred: results are inferred on the edge only; leave it out, or make system_type edge")
        if self.scenarios and (others := sorted({*self.inferred, *self.inferred.values()} - {*self.scenarios})):
            raise ValueError(f"inferred: {others[0]} is not among scenarios; expected those only")
        if self.model is not None and self.is_closed:
            raise ValueError(f"model: in the {self.division} division it is the result's own; leave it out")
        return self


def read_about(path: Path) -> About:
    """The file, read strictly. Raises ``InputError`` in one line that names it, and each field that is wrong."""
    content = read_config_file(path, "expected a file such as docs/examples/submission.yaml")
    try:
        return About.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(_told(details["loc"], details["msg"], details["input"]) for details in error.errors())
        raise InputError(f"{path}: {printable(wrong)}") from None


def _told(place: tuple[int | str, ...], message: str, got: object) -> str:
    text = message.removeprefix("Value error, ")
    if not place:  # of several fields; the text names one
        return text
    names = ".".join(str(part) for part in place if part != "[key]")
    if text == "Field required":
        return f"{names}: it is missing"
    if text == "Extra inputs are not permitted":
        return f"{names}: no such field; {suggest(names, About.model_fields)}"
    return f"{names}: {text}" if isinstance(got, dict) else f"{names}: {text}, got '{shortened(str(got))}'"
