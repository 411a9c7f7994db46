"""Parts of the GPU report about preprocessing: how right it is, and which of its functions ran there at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import cv2
import numpy as np

from kernels import gpu
from plugins.packages import CHECKOUT
from preprocess import registry
from preprocess.base import unmarked
from preprocess.opencv import decode_at
from preprocess.oracle import oracle
from preprocess.parts.decode import decode
from sut.datasets.demo import open_demo
from sut.models.registry import find
from sut.qsl.device_library import DeviceLibrary
from sut.qsl.library import Loading, Rows
from sut.results import parity as measuring
from sut.studies.gpu_report.child import names_of, noted, rows_of, watched
from sut.studies.gpu_report.preprocess import MODEL, has_engine, target

WITH_DALI = ("dali-gpu", "dali-gpu-resize")
"""Preprocessors that need DALI, which may be missing: nothing else needs it."""
PREPROCESSORS = ("cuda", *WITH_DALI)
RECIPES = ("resnet50", "efficientnet-lite0", "yolo11", "retinanet")
"""Models whose recipes ``same_pixels`` compares: by area and cubic; linear in a letterbox and stretched."""
PICTURES_AT_A_TIME = 8
_LARGE_SIZE = 512
"""Pixels a side from which on all of them at once would take gigabytes."""


def parity(names: Sequence[str]) -> dict[str, Any]:
    """How far preprocessors on the GPU are from the oracle, and how many labels agree, one after the other.

    ``sut parity`` begins with the files, so that it has the decoder's differences too; ``same_pixels`` with what OpenCV
    decoded.
    """
    found: dict[str, Any] = {"wrong": [], "measured": [], "same_pixels": []}
    for name in names:
        with noted(name, found["wrong"]):
            _, measured, _ = rows_of("parity", "--preprocess", name)
            same = same_pixels(name)
            found["measured"] += measured
            found["same_pixels"] += same
    rows: list[tuple[object, ...]] = []
    for row in found["measured"]:
        labels = None if row["labels"] is None else f"{row['labels_same']} of {row['labels']} the same"
        rows.append((row["preprocess"], row["pictures"], *_picked(row["parity"]), labels))
    rows += [(r["preprocess"], f"decoded, {r['recipe']}", *_picked(r), None) for r in found["same_pixels"]]
    head = ("preprocess", "pictures", "n", "max_levels", "labels")
    return {**found, "table": [dict(zip(head, row, strict=True)) for row in rows]}


def _picked(parity: Mapping[str, Any]) -> tuple[int, int]:
    return parity["pictures"], parity["max_levels"]


def same_pixels(name: str) -> list[dict[str, Any]]:
    """How far a preprocessor's rows are from the oracle's, given the same decoded pixels: largest difference in levels.

    The demo photos, white noise, and photos squeezed to random sizes; of a large recipe every third of them.
    """
    make = registry.load(name)
    every = [decode(data) for data in (*measuring.photos(), *measuring.noise(2), *measuring.sizes(20))]
    found = []
    for model in RECIPES:
        recipe = find(model).recipe
        pictures = every[:: 3 if recipe.size >= _LARGE_SIZE else 1]
        rows = np.full((len(pictures), *recipe.sample_shape), np.nan, recipe.dtype)
        with make(recipe) as working:
            for at in range(0, len(pictures), PICTURES_AT_A_TIME):
                some = pictures[at : at + PICTURES_AT_A_TIME]
                working.run_pixels(some, Rows.of(rows[at : at + len(some)]), unmarked)
        expected = np.stack([oracle(picture, recipe)[1] for picture in pictures]).astype(np.int32)
        apart = measuring.compare(measuring.levels(rows, recipe), expected)
        found.append({"preprocess": name, "recipe": recipe.name, **apart.model_dump()})
    return found


def preprocess_ran() -> dict[str, Any]:
    """Which functions of preprocess/, plugins/ and the library of the boundary ``device`` were called on this GPU.

    Those of a preprocessor count once it has come to its end, and its rows in the GPU's memory were those that came to
    host memory. Nothing is timed.
    """
    functions: set[str] = set()
    found: dict[str, Any] = {"jpeg_engine": None, "parity": {}, "not_installed": {}, "wrong": []}
    with watched(tuple(f"{CHECKOUT / name}/" for name in ("preprocess", "sut/qsl", "plugins"))) as called:
        found["jpeg_engine"] = has_engine()
        if found["jpeg_engine"]:
            functions |= called
        for name in PREPROCESSORS:
            called.clear()
            missing = found["not_installed"] if name in WITH_DALI else None
            with noted(name, found["wrong"], missing):
                found["parity"][name] = exercise(name)
                functions |= called
    return {**found, "functions": names_of(functions)}


def exercise(name: str) -> Mapping[str, Any]:
    """Parity of the preprocessor ``name``; raises ``RuntimeError`` where rows differ by the way they took."""
    recipe = find(MODEL).recipe
    make = registry.load(name)
    found: dict[str, Any] = {"version": make.version(), **measuring.measure_quickly(make, recipe).model_dump()}
    demo = open_demo()
    indices = list(range(4))
    expected = np.empty((len(indices), *recipe.sample_shape), recipe.dtype)
    with make(recipe) as working:
        spare = np.empty_like(expected)
        # Some that are not for the GPU's decoder, and some that no decoder should take; after them all is as before.
        for odd in _odd(demo.read(0)):
            with suppress(ValueError):
                working.run([odd], Rows.of(spare[:1]), unmarked)
        # One by one, as the library does: decoders may choose another way for a batch.
        for index in indices:
            working.run([demo.read(index)], Rows.of(expected[index : index + 1]), unmarked)
        pixels = [decode_at(0, demo.read(index)) for index in indices]
        working.run_pixels(pixels, Rows.of(spare), unmarked)
        found["counts"] = dict(working.counts())
    with gpu.open_device("cuda:0") as device:
        opened = gpu.open_device("cuda:0")
        how = Loading(demo, partial(make, recipe), len(indices), 1)
        library = DeviceLibrary(how, recipe, device=opened, gather=opened.gather, place="cuda:0")
        try:
            library.load(indices)
            slot = device.alloc(expected.nbytes)
            library.source().fill(indices, target(slot.address, expected), unmarked)
            got = device.download(slot, expected.shape, expected.dtype)
        finally:
            library.close()
    if not np.array_equal(got, expected):
        raise RuntimeError(f"{name}: rows in the GPU's memory differ from those in host memory")
    return found


def _odd(photo: bytes) -> list[bytes]:
    """A PNG, a progressive JPEG, and JPEGs that end in the middle and behind the header."""
    pixels = decode(photo)
    made = [(".png", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])]
    whole = [cv2.imencode(ending, pixels, settings)[1].tobytes() for ending, settings in made]
    return [*whole, photo[: len(photo) // 2], photo[:700]]
