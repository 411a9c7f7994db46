"""Pillow's filters in host form against the oracle, which is Pillow to the bit: sizes, layouts, memory, bad input."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.device import SOURCES
from kernels.host import HostDevice
from kernels.lab.check import Picture, finish, run_hot_path
from kernels.normalize import Output
from kernels.placement import SUPPORTS, Place
from kernels.resample import PLAN, plan
from kernels.resize import PICTURE, Resize, describe
from preprocess.base import Recipe
from preprocess.oracle import fit, resize_fit
from tests.kernels.test_resize import LEVELS, examples, noise, outputs, seeds, sides, sizes, whole

FILTERS = tuple(SUPPORTS)


def assert_same(device: HostDevice, pictures: list[Picture], output: Output = LEVELS, gap: int = 0) -> None:
    plain = replace(output, size=pictures[0].place.size)
    output = replace(plain, stride_bytes=plain.sample_bytes + gap * np.dtype(plain.dtype).itemsize)
    written = run_hot_path(device, pictures, output)
    assert written.clean
    truth = [resize_fit(each.pixels, each.place, each.interpolation, each.pad_level) for each in pictures]
    np.testing.assert_array_equal(written.values, finish(np.stack(truth), output), strict=True)


@examples(60)
@given(st.data(), seeds, sizes, outputs(), st.integers(0, 5))
def test_any_sizes_and_any_padding_in_one_batch(
    each_order: HostDevice, data: st.DataObject, seed: int, size: int, output: Output, gap: int
) -> None:
    pictures = []
    for number in range(data.draw(st.integers(1, 3))):
        width, height, to_width, to_height = (data.draw(sides) for _ in range(4))
        left, top = (data.draw(st.integers(1 - size, to - 1)) for to in (to_width, to_height))
        place = whole(width, height, to_width, to_height, size, left, top)
        padding, pad_level = data.draw(st.integers(0, 20)), data.draw(st.sampled_from([0, 114, 255]))
        pictures.append(noise(seed + number, place, data.draw(st.sampled_from(FILTERS)), padding, padding, pad_level))
    assert_same(each_order, pictures, output, gap)


@examples(40)
@given(seeds, st.integers(1, 400), st.integers(1, 400), st.sampled_from(FILTERS), outputs())
def test_recipes(host: HostDevice, seed: int, width: int, height: int, filter_: str, output: Output) -> None:
    for kind in ("resize-crop", "crop-resize", "stretch", "letterbox"):
        recipe = Recipe(name="small", size=33, fit=kind, interpolation=filter_, short_side=40, crop_offset="round")
        assert_same(host, [noise(seed, fit(recipe, width, height), filter_)], output)


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize(
    "place",
    [
        whole(20000, 1, 40, 40, 40),
        whole(1, 20000, 40, 40, 40),  # rows first
        whole(1, 1, 40, 40, 40),
        whole(40, 40, 40, 40, 40),  # nothing changes
        whole(40, 90, 40, 40, 40),
        Place(90, 70, 31, 22, 40, 35, 40, 30, 3, 2, 25),  # a box of a picture
        whole(640, 480, 298, 224, 224, 37, 0),
    ],
    ids=str,
)
def test_edges(host: HostDevice, place: Place, filter_: str) -> None:
    assert_same(host, [noise(1, place, filter_, padding=5)])


@pytest.mark.parametrize("variant", ["naive", "tiled"])
def test_a_chain_of_launches_gives_the_same(host: HostDevice, variant: str) -> None:
    picture = noise(2, whole(90, 61, 33, 33, 33), "pillow-lanczos")
    for layout in ("NCHW", "NHWC"):
        output = Output(size=33, layout=layout, mean=(123.68, 116.78, 103.94))
        chain, fused = (run_hot_path(host, [picture], output, each) for each in (variant, "fused"))
        np.testing.assert_array_equal(chain.values, fused.values)


def test_a_smaller_batch_after_a_larger_one(host: HostDevice) -> None:
    with Resize(host, replace(LEVELS, size=24)) as kernel, host.alloc(24 * 24 * 3 * 3) as target:
        for count in (3, 1, 2):
            pictures = [noise(at, whole(60 + at, 300 - 90 * at, 24, 24, 24), FILTERS[at]) for at in range(count)]
            memory = [each.upload(host) for each in pictures]
            described = [
                describe(host, at, each.place, each.interpolation) for at, each in zip(memory, pictures, strict=True)
            ]
            kernel.run(np.stack(described), target)
            got = host.download(target, (count, 24, 24, 3), np.uint8)
            for row, each in zip(got, pictures, strict=True):
                np.testing.assert_array_equal(row, resize_fit(each.pixels, each.place, each.interpolation))


def test_both_rules_in_one_batch_are_refused(host: HostDevice) -> None:
    place = whole(30, 20, 30, 20, 10)
    with host.alloc(1800) as memory, Resize(host, Output(size=10)) as kernel:
        both = np.stack([describe(host, memory, place, method) for method in ("area", "pillow-bicubic")])
        with pytest.raises(ValueError, match="by OpenCV's rules and by Pillow's in one batch, expected one of them"):
            kernel.load(both)


def test_windows_and_pixels_of_pictures_lie_one_after_the_other() -> None:
    pictures = np.zeros(2, PICTURE)
    for name, values in {
        "box_width": (100, 40),
        "box_height": (80, 400),
        "resized_width": (50, 20),
        "resized_height": (40, 20),
        "crop_left": (5, 0),
    }.items():
        pictures[name] = values
    plans, ints, pixels = plan(pictures, np.array([1.0, 2.0]), 20)

    assert plans.dtype == PLAN
    assert plans["rows_first"].tolist() == [0, 1]
    assert plans["columns_taps"].tolist() == [5, 9] and plans["rows_taps"].tolist() == [5, 81]
    assert (plans["low"].tolist(), plans["extent"].tolist()) == ([0, 0], [41, 40])
    assert pixels.tolist() == [41 * 20, 40 * 20] and plans["between"].tolist() == [0, 3 * 41 * 20]
    assert ints == 20 * (4 + 10) + 20 * (4 + 90) and plans["windows"].tolist() == [0, 20 * 14]


MUTATIONS = {
    "centre = (output + axis.skipped + 0.5) * scale": "centre = (output + axis.skipped) * scale",
    "constexpr double a = -0.5;": "constexpr double a = -0.75;",
    "1 << (precision_bits - 1), 1 << (precision_bits - 1), 1 << (precision_bits - 1)": "0, 0, 0",
}


@pytest.mark.slow
@pytest.mark.parametrize("correct", MUTATIONS)
def test_mistakes_are_noticed(host: HostDevice, tmp_path: Path, correct: str) -> None:
    sources = Path(shutil.copytree(SOURCES, tmp_path / "kernels", ignore=lambda *_: {"host", "__pycache__"}))
    text = (sources / "resample.cu").read_text(encoding="utf-8")
    assert correct in text
    (sources / "resample.cu").write_text(text.replace(correct, MUTATIONS[correct]), encoding="utf-8")
    picture = noise(8, whole(91, 67, 33, 33, 33), "pillow-bicubic")
    assert_same(host, [picture])
    with HostDevice(sources) as mutant, pytest.raises(AssertionError):
        assert_same(mutant, [picture])
