"""What a ladder's file says: the rungs, each as settings, and the load that all of them are measured under."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from plugins.packages import CHECKOUT
from sut.config import RunConfig, read_config_file
from sut.errors import InputError, SetupError
from sut.pipeline.loading import load_backend, load_preprocessor
from sut.studies.comparing.matrix import APART, NOT_COMPARED, OTHER_WORK
from sut.studies.driving.loads import MOST_OUTSTANDING
from sut.studies.tuning.space import points_of, with_settings
from sut.text import printable, shortened

DEFAULT = CHECKOUT / "configs" / "ladder.yaml"
ON_GPU = CHECKOUT / "configs" / "ladder-gpu.yaml"
MOST_RUNGS = 20

_Name = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(printable)]


class Rung(BaseModel):
    """One rung: the settings of the rung that it is ``like``, and what it changes in them.

    With ``search`` the best combination of these values is looked for before anything is measured; ``like`` it means
    with what was found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    like: str | None = None
    settings: dict[str, Any] = {}
    search: dict[str, list[Any]] = {}


class Ladder(BaseModel):
    """All rungs, from the bottom up, and their load: a closed loop of so many requests outstanding.

    ``pictures`` are generated ones of that size, unless the settings beside it name a data set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rungs: Annotated[list[Rung], Field(min_length=1, max_length=MOST_RUNGS)]
    concurrency: Annotated[int, Field(ge=1, le=MOST_OUTSTANDING)] = 8
    seconds: Annotated[float, Field(ge=0.1, le=3600)] = 5.0
    pictures: Literal["medium", "large"] = "medium"

    def settings_of(self, rung: Rung, found: Mapping[str, Mapping[str, Any]] = {}) -> dict[str, Any]:
        """What a rung sets, with what was ``found`` by the searches of rungs, by their names."""
        below = next((each for each in self.rungs if each.name == rung.like), None)
        return {**(self.settings_of(below, found) if below else {}), **rung.settings, **found.get(rung.name, {})}


def read_ladder(path: Path) -> tuple[Ladder, dict[str, Any]]:
    """The ladder in a file, and the settings beside it, which hold on all rungs.

    Raises ``InputError`` for a file that is none, no rungs, two of one name, and one like no rung below it.
    """
    content = read_config_file(path, f"--config takes a ladder such as {DEFAULT}")
    own = {name: content.pop(name) for name in Ladder.model_fields if name in content}
    if "rungs" not in own:
        raise InputError(f"{path}: it has no rungs, expected a list as in {DEFAULT}")
    try:
        ladder = Ladder(**own)
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {what}, got '{shortened(str(first['input']))}'"
        ) from None
    names = [rung.name for rung in ladder.rungs]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{path}: two rungs are called '{twice[0]}'; a name tells a rung from all others")
    for number, rung in enumerate(ladder.rungs):
        if rung.like is not None and rung.like not in names[:number]:
            raise InputError(f"{path}: rung '{rung.name}' is like '{rung.like}', expected the name of a rung before it")
    return ladder, content


def check_rungs(ladder: Ladder, base: RunConfig) -> None:
    """Refuse what no machine could run, before anything is measured. Raises ``InputError`` that names the rung."""
    for rung in ladder.rungs:
        try:
            _check(ladder, rung, base)
        except InputError as error:
            raise InputError(f"rung '{rung.name}': {error}") from None


def _check(ladder: Ladder, rung: Rung, base: RunConfig) -> None:
    for key in (*rung.settings, *rung.search):
        if key.partition(".")[0] in {*APART, *OTHER_WORK, *NOT_COMPARED}:
            raise InputError(f"'{key}' is the same on all rungs, which do the same work; put it beside rungs")
    config = with_settings(base, ladder.settings_of(rung))
    points_of(rung.search, config)
    with suppress(SetupError, ModuleNotFoundError):  # what is not installed here is a row with that reason
        load_preprocessor(config.preprocess, config.preprocess_options)
        load_backend(config.backend)
