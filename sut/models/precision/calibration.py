"""Which pictures calibrate an INT8 model: what the ranges of its activations are measured on.

They should be like the pictures that are scored, but not the same: else the scores flatter the ranges.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.files import LARGE_BYTES, read_file
from preprocess.base import Geometry, Recipe
from preprocess.opencv import OpenCV
from preprocess.parts.decode import check, decode
from sut.datasets.base import DataSet
from sut.errors import InputError, one_line, reason_of
from sut.qsl.library import Rows
from sut.qsl.pictures import most_bytes

SAMPLES = 300
"""Samples that calibrate, unless a list says which: what NNCF takes by default, and seconds of work."""
MAX_LISTED = 500
"""The length of MLCommons' lists for ImageNet, which are used whole."""
MAX_BYTES = 512 * 2**20
"""All samples together; a model with a large input gets fewer."""
FEW_PICTURES = 10
"""Fewer than this are noted."""
LEAST_UNSEEN = 5
"""With fewer pictures that are not scored than this, crops of all are the lesser evil."""

_SEED = 20_200_713
_SMALLEST_CROP = 0.5
_KEEP_ALL = ("letterbox", "stretch")
"""The fits by which a recipe keeps the whole picture."""
OPTIMISTIC = "agreement is optimistic"
"""How the note ends that says that pictures calibrate which are scored."""
_OFFICIAL = re.compile(r"(?:ILSVRC2012_val_|0000)(\d{8})\.(?:JPEG|jpg)")
MLCOMMONS_LISTS: tuple[Mapping[int, int], ...] = (
    {1: 27145, 2: 42168, 3: 41705, 4: 42546, 5: 4352, 496: 8036, 497: 9784, 498: 14783, 499: 33806, 500: 38174},
    {1: 31333, 2: 4655, 3: 40098, 101: 39426, 201: 11895, 301: 24426, 401: 29372, 451: 37897, 488: 49503},
    {1: 391895, 2: 522418, 3: 184613, 4: 318219, 5: 554625, 498: 295589, 499: 37038, 500: 511117},
)
"""What MLCommons' lists (calibration/ImageNet/cal_image_list_option_1.txt and _2, and COCO/coco_cal_images_list.txt of
mlcommons/inference) are known by: the numbers of the pictures in some of their lines."""

Picture = NDArray[np.uint8]
"""Decoded, (height, width, 3), BGR."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The samples that calibrate, and what a reader of the result must know of them.

    ``tensors`` is (n, \\*recipe.sample_shape) in the recipe's dtype, made by the preprocessor ``opencv``.
    """

    tensors: NDArray[Any]
    source: str
    """What they are, in words: ``300 pictures that are not scored``."""
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the samples, as lower-case hex."""
        about = f"{self.tensors.dtype} {self.tensors.shape} ".encode()
        return hashlib.sha256(about + np.ascontiguousarray(self.tensors).data).hexdigest()


def calibrate_on(
    scored: DataSet, whole: DataSet, recipe: Recipe, list_file: Path | None = None, *, closed: bool = False
) -> Calibration:
    """Choose the pictures and preprocess them.

    ``scored`` is the data set as it is run, ``whole`` the same one without ``--count``: what it has more is not scored.
    With a ``list_file`` its pictures are used, of the data set or beside the list; without, up to ``SAMPLES`` of those
    that are not scored, and crops of them where they are fewer; and where there are next to none, crops of the pictures
    that are scored, which a note says. A ``recipe`` that keeps the whole picture gets whole pictures, as many as there
    are: what it pads, and how small things are in it, is what the model sees. With ``closed`` (MLPerf's closed
    division) only a list of MLCommons' form will do. The same arguments give the same samples.

    Raises ``InputError`` for a list, an entry or a picture that does not do.
    """
    if whole.count == 0:
        raise InputError(f"data set {whole.name} has no pictures to calibrate with, expected one or more")
    if closed:
        check_mlcommons(list_file)
    if list_file is not None:
        return _listed(whole, recipe, list_file)
    among = set(scored.files)
    unseen = [index for index, file in enumerate(whole.files) if file not in among]
    wanted = _affordable(SAMPLES, recipe)
    notes: list[str] = []
    crops_of = "" if recipe.fit in _KEEP_ALL else "crops of "
    if len(unseen) >= wanted:
        chosen = _drawn(unseen, wanted)
        return Calibration(_pictures(whole, chosen, recipe), f"{wanted} pictures that are not scored")
    if len(unseen) >= LEAST_UNSEEN:
        chosen, what = unseen, "pictures that are not scored"
    else:
        chosen, what = _drawn(range(whole.count), wanted), "scored pictures"
        notes.append(f"calibrated on {crops_of}the pictures that are scored; {OPTIMISTIC}")
    if len(chosen) < FEW_PICTURES:
        notes.append(f"calibrated on {crops_of}only {len(chosen)} pictures, expected {FEW_PICTURES} or more")
    if not crops_of:
        return Calibration(_pictures(whole, chosen, recipe), f"{len(chosen)} {what}", tuple(notes))
    pictures = (read_picture(whole, index, "calibrate the model") for index in chosen)
    crops = random_crops(pictures, len(chosen), wanted, _SEED)
    return Calibration(preprocessed(crops, wanted, recipe), f"{wanted} crops of {len(chosen)} {what}", tuple(notes))


def random_crops(pictures: Iterable[Picture], of: int, count: int, seed: int) -> Iterator[Picture]:
    """``count`` square crops ``of`` so many pictures: half to the whole of the short side, anywhere in the picture.

    Each picture gets its share of them and is then done with: one is held at a time. The same arguments give the same
    crops.
    """
    draw = np.random.default_rng(seed)
    for number, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        short = min(height, width)
        for _ in range(count * number // of, count * (number + 1) // of):
            side = int(draw.integers(max(1, int(_SMALLEST_CROP * short)), short + 1))
            top, left = (int(draw.integers(0, size - side + 1)) for size in (height, width))
            yield picture[top : top + side, left : left + side]


def preprocessed(pictures: Iterable[Picture], count: int, recipe: Recipe) -> NDArray[Any]:
    """``count`` pictures by the recipe, as the preprocessor ``opencv`` makes them: (count, \\*recipe.sample_shape).

    Raises ``ValueError`` for a recipe that contradicts itself.
    """
    return with_geometries(pictures, count, recipe)[0]


def with_geometries(pictures: Iterable[Picture], count: int, recipe: Recipe) -> tuple[NDArray[Any], list[Geometry]]:
    """``preprocessed``, and what it did to each picture."""
    tensors = np.empty((count, *recipe.sample_shape), recipe.dtype)
    geometries: list[Geometry] = []
    with OpenCV(recipe) as preprocessor:
        for row, picture in zip(tensors, pictures, strict=True):
            geometries += preprocessor.run_pixels([picture], Rows.of(row[np.newaxis]), lambda stage: None)
    return tensors, geometries


def read_picture(dataset: DataSet, index: int, purpose: str) -> Picture:
    """A picture of the data set, known to be whole. Raises ``InputError`` with its name and what it is to do."""
    try:
        data = dataset.read(index)
        check(data, most_bytes(1))
        return decode(data)
    except (OSError, ValueError) as error:
        name = dataset.root / dataset.files[index]
        raise InputError(f"{name}, which is to {purpose}: {reason_of(error)}") from error


def check_mlcommons(path: Path | None) -> None:
    """Raise ``InputError`` where a calibration list is none of MLCommons', which the closed division asks for."""
    if path is None:
        raise InputError(
            "the rules of the closed division take MLCommons' calibration pictures only; give its list with "
            "--calibration-list FILE (calibration/ImageNet/cal_image_list_option_1.txt of mlcommons/inference)"
        )
    entries = _read_list(path)
    if not _is_mlcommons([word for _, word in entries]):
        raise InputError(
            f"{path} is not MLCommons' calibration list ({len(entries)} entries), expected one of its lists of "
            f"{MAX_LISTED} names ILSVRC2012_val_NNNNNNNN.JPEG or, of COCO, NNNNNNNNNNNN.jpg; the rules of the closed "
            "division take no other"
        )


def _listed(whole: DataSet, recipe: Recipe, path: Path) -> Calibration:
    entries = _read_list(path)
    place = _places(whole)
    if place(entries[0][1]) is None and (path.parent / entries[0][1]).is_file():
        # COCO's list has pictures of the training set: it lies among them.
        beside = dict.fromkeys(word for _, word in entries if (path.parent / word).is_file())
        whole = DataSet("the list's own folder", path.parent, tuple(beside), None)
        place = _places(whole)
    chosen: dict[int, int] = {}
    for line, word in entries:
        index = place(word)
        if index is None:
            raise InputError(
                f"{path} line {line}: '{word}' is no picture of the data set {whole.name} in {whole.root} "
                f"({whole.count} pictures); expected a file's name or its number there, from 1"
            )
        chosen.setdefault(index, line)
    wanted = min(len(chosen), _affordable(MAX_LISTED, recipe))
    used = list(chosen)[:wanted]
    notes = [f"calibrated on the first {wanted} of {len(chosen)} pictures in {path.name}"] * (wanted < len(chosen))
    if wanted < FEW_PICTURES:
        notes.append(f"calibrated on only {wanted} pictures, expected {FEW_PICTURES} or more")
    source = f"{wanted} pictures in the list {path.name}"
    places = {index: f" ({path} line {line})" for index, line in chosen.items()}
    return Calibration(_pictures(whole, used, recipe, places), source, tuple(notes))


def _is_mlcommons(names: Sequence[str]) -> bool:
    """Whether this is one of MLCommons' lists: as long, without repetitions, and with the lines it is known by."""
    numbers = [int(match[1]) for name in names if (match := _OFFICIAL.fullmatch(name))]
    if not len(set(numbers)) == len(names) == MAX_LISTED:
        return False
    return any(all(numbers[line - 1] == number for line, number in known.items()) for known in MLCOMMONS_LISTS)


def _read_list(path: Path) -> list[tuple[int, str]]:
    """Line number and first word of every line that has one: MLCommons' second list has a label behind the name."""
    try:
        lines = read_file(path, LARGE_BYTES).decode("utf-8-sig", "surrogateescape").splitlines()
    except FileNotFoundError:
        raise InputError(f"there is no calibration list {path}; expected a text file with a picture per line") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the calibration list {path}: {one_line(error)}; expected a text file") from error
    entries = [(number, words[0]) for number, line in enumerate(lines, start=1) if (words := line.split())]
    if not entries:
        raise InputError(f"the calibration list {path} is empty, expected a picture per line")
    return entries


def _places(dataset: DataSet) -> Callable[[str], int | None]:
    """Finds a list's entry in the data set: by its whole name, the last part of it, or its number from 1."""
    names = {file: index for index, file in enumerate(dataset.files)}
    last: dict[str, int | None] = {}
    for file, index in names.items():
        base = posixpath.basename(file)
        last[base] = None if base in last else index  # a name that is there twice names neither

    def place(word: str) -> int | None:
        name = posixpath.normpath(word)
        if name in names:
            return names[name]
        if (found := last.get(posixpath.basename(name))) is not None:
            return found
        number = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else 0
        return number - 1 if 1 <= number <= dataset.count else None

    return place


def _affordable(samples: int, recipe: Recipe) -> int:
    """``samples``, or as many as ``MAX_BYTES`` hold, but one at least."""
    each = int(np.prod(recipe.sample_shape)) * np.dtype(recipe.dtype).itemsize
    return max(1, min(samples, MAX_BYTES // each))


def _drawn(indices: Sequence[int], count: int) -> list[int]:
    """``count`` of the indices, drawn without returning them, in order; all where they are fewer."""
    if len(indices) <= count:
        return list(indices)
    drawn = np.random.default_rng(_SEED).choice(len(indices), count, replace=False)
    return [indices[at] for at in sorted(drawn.tolist())]


def _pictures(
    whole: DataSet, chosen: Sequence[int], recipe: Recipe, listed: Mapping[int, str] = MappingProxyType({})
) -> NDArray[Any]:
    decoded = (read_picture(whole, index, f"calibrate the model{listed.get(index, '')}") for index in chosen)
    return preprocessed(decoded, len(chosen), recipe)
