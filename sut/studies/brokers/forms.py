"""The forms of a pipeline of two models that are compared, and whether one can be had here."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from plugins.packages import CHECKOUT
from plugins.registry import suggest
from sut.channels.registry import open_receiver, settings_of
from sut.config import MOST_CROPS, RunConfig
from sut.errors import InputError, RunError, SetupError, one_line
from sut.studies.tuning.space import with_settings

FUSED = "fused"
"""The lane identifies what it has found: there is no channel."""
BROKERS = ("redis", "kafka")
USUAL = (FUSED, "shared", *BROKERS)
URLS = {"redis": "redis://127.0.0.1:6379", "kafka": "kafka://127.0.0.1:9092"}
FAN_OUTS = (1, 3, 5, 9, 15, 25)
CONFIG = CHECKOUT / "configs" / "detect-identify.yaml"
_KNOWN = (FUSED, "memory", *USUAL[1:])


@dataclass(frozen=True, slots=True)
class Form:
    """A form by its ``name``; ``channel`` is the setting that makes it.

    ``durable``: somebody has said that this broker keeps its messages on disks.
    """

    name: str
    channel: str
    durable: bool = False

    def config(self, base: RunConfig, fan_out: int) -> RunConfig:
        """What runs in this form, with so many crops of each frame."""
        return with_settings(base, {"channel": self.channel, "fan_out": str(fan_out)})


def forms_of(names: str | None, redis: str | None, kafka: str | None, durable: bool) -> list[Form]:
    """The forms of a comma list, fused first: all others are held against it. Brokers are where their URLs say.

    Raises ``InputError`` for a form that there is not, for a URL of something else, and for ``durable`` without a URL.
    """
    words = USUAL if names is None else [name.strip() for name in names.split(",")]
    if unknown := next((name for name in words if name not in _KNOWN), None):
        raise InputError(f"--forms: unknown form '{unknown}'; {suggest(unknown, _KNOWN)}")
    if durable and kafka is None:
        raise InputError("--durable says of a Kafka of yours that it keeps messages on disks; name it by --kafka URL")
    urls = URLS | {name: url for name, url in (("redis", redis), ("kafka", kafka)) if url is not None}
    for name, url in urls.items():
        if settings_of(url).channel != name:
            raise InputError(f"--{name}: got {url}, expected a URL such as {URLS[name]}")
    channels = {FUSED: "none", "memory": "memory", "shared": "shared", **urls}
    chosen = [name for name in _KNOWN if name in {FUSED, *words}]
    return [Form(name, channels[name], durable and name == "kafka") for name in chosen]


def fan_outs_of(text: str | None) -> list[int]:
    """Numbers of crops a frame, a comma list, ascending. Raises ``InputError``."""
    if text is None:
        return [*FAN_OUTS]
    words = [word.strip() for word in text.split(",")]
    wrong = next((each for each in words if not each.isdecimal() or not 1 <= int(each) <= MOST_CROPS), None)
    if wrong is not None:
        raise InputError(f"--fan-outs: got '{wrong}', expected crops of a frame from 1 to {MOST_CROPS:,}: 1,9,25")
    return sorted({int(each) for each in words})


def why_not(form: Form) -> str | None:
    """Why a form cannot be had here, in a line: its channel is opened and closed. Raises ``InputError``."""
    if form.name == FUSED:
        return None
    try:
        open_receiver(replace(settings_of(form.channel), run=f"look-{uuid.uuid4().hex[:8]}")).close()
    except (SetupError, RunError, ModuleNotFoundError) as error:
        return one_line(error)
    return None


def missing(absent: Sequence[str]) -> str:
    """What to do where forms are absent.

    >>> missing(["redis", "shared"])
    'start one, or name yours: --redis URL'
    """
    return "start one, or name yours: " + ", ".join(f"--{name} URL" for name in absent if name in BROKERS)
