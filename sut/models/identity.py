"""Who a model is, told by the content of its file and never by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from plugins.files import known_digest
from sut.models.base import Made, ModelSpec, Weights
from sut.models.registry import MODELS, find

KNOWN: Mapping[str, str] = {
    "f6a4da60cd5f084d97efc2c1ddb10beb": "resnet50",  # resnet50_v1.onnx, operator set 11
    "a638cf028b5870da29e09ccc2f7182e7": "resnet50",  # resnet50_v1.onnx, operator set 8
}
"""Files of MLPerf's reference models: MD5, as MLCommons publishes it, and the model's name."""

Known = Literal["trained", "random", "planted", "unknown"]
"""What a model's weights are; ``unknown`` for a file of which nothing is known."""


def weights_of(
    spec: ModelSpec,
    source: Path,
    sums: Mapping[Path, str],
    sha256: str,
    asked: Weights,
    known_models: Mapping[str, str],
) -> tuple[Known, str | None]:
    """What the weights of ``source`` are, and a note where that is only what the user says.

    ``spec`` is the model that it is run as, before folding; ``sums`` are those of all files it consists of, ``sha256``
    that of its whole content; ``asked`` says which weights were to be built. ``known_models`` are the user's own:
    SHA-256 of a whole content, or MD5 of a model in one file, and a model's name.

    A known file under another model's name, or with another recipe than that model's, as far as that is not the file's
    to decide, is ``unknown``. Raises ``InputError`` for a name in ``known_models`` that no model has.
    """
    vouched = {digest: find(name).name for digest, name in known_models.items()}
    known = MODELS.get(spec.name)
    if known is None:
        return "unknown", None
    if replace(known.prepared_as(spec.recipe), build=spec.build) != spec:
        return "unknown", None
    if spec.build is known.build:
        made: Made
        for made in (asked, "planted"):
            if made in known.makes:
                return made, None
    digests = {sha256}
    if len(sums) == 1 and spec.name in {*KNOWN.values(), *vouched.values()}:
        digests.add(known_digest(source, "md5"))
    if any(KNOWN.get(digest) == spec.name for digest in digests):
        return "trained", None
    if any(vouched.get(digest) == spec.name for digest in digests):
        return "trained", f"{source.name} counts as {spec.name} by known_models: the user's word, not MLCommons'"
    return "unknown", None
