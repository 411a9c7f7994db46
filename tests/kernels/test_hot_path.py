"""Pictures to the model's input by one kernel and by three: the same bytes, the oracle's."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.host import HostDevice
from kernels.hot_path import VARIANTS, HotPath
from kernels.lab.check import Picture, finish, run_hot_path
from kernels.normalize import Output
from kernels.placement import Place
from kernels.resize import describe
from preprocess.base import Recipe
from preprocess.oracle import fit, oracle

SIDES = [(100, 75), (61, 90), (33, 20), (80, 64), (256, 31)]


def pictures_of(recipe: Recipe) -> list[Picture]:
    random = np.random.default_rng(11)
    return [
        Picture(
            random.integers(0, 256, (height, width, 3), np.uint8),
            fit(recipe, width, height),
            recipe.interpolation,
            padding=width % 4,
        )
        for width, height in SIDES
    ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("kind", ["resize-crop", "letterbox"])
def test_the_oracle_s_samples(
    each_order: HostDevice, kind: str, variant: str, layout: str, dtype: str, order: str
) -> None:
    numbers = {} if dtype == "uint8" else {"mean": (123.68, 116.78, 103.94), "std": (58.395, 57.12, 57.375)}
    recipe = Recipe(
        name="small",
        size=30,
        fit=kind,
        interpolation="area",
        colour_order=order,
        layout=layout,
        dtype=dtype,
        **numbers,
    )
    output = Output(size=30, layout=layout, dtype=dtype, swap=order == "RGB", **numbers)
    pictures = pictures_of(recipe)

    written = run_hot_path(each_order, pictures, output, variant)

    assert written.clean
    expected = np.stack([oracle(picture.pixels, recipe)[0] for picture in pictures])
    np.testing.assert_array_equal(written.values, expected, strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_and_gaps_between_samples(each_order: HostDevice, variant: str) -> None:
    recipe = Recipe(name="small", size=20, fit="crop-resize", interpolation="cubic")
    plain = Output(size=20, dtype="int8", mean=(127.0, 120.0, 110.0), std=(1.5, 1.0, 0.5))
    output = replace(plain, stride_bytes=plain.sample_bytes + 7)
    pictures = pictures_of(recipe)

    written = run_hot_path(each_order, pictures, output, variant)

    assert written.clean
    levels = np.stack([oracle(picture.pixels, replace(recipe, colour_order="BGR"))[1] for picture in pictures])
    np.testing.assert_array_equal(written.values, finish(levels, output), strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_batches_of_any_size_after_each_other(host: HostDevice, variant: str) -> None:
    recipe = Recipe(name="small", size=20, fit="resize-crop", interpolation="linear", colour_order="BGR")
    output = Output(size=20)
    pictures = pictures_of(recipe)
    memory = [picture.upload(host) for picture in pictures]
    described = np.stack(
        [
            describe(host, buffer, picture.place, "linear", pitch=3 * picture.place.width + picture.padding)
            for picture, buffer in zip(pictures, memory, strict=True)
        ]
    )
    expected = np.stack([oracle(picture.pixels, recipe)[0] for picture in pictures])
    with HotPath(host, variant, output) as path, host.alloc(output.bytes_for(5)) as target:
        for chosen in ([0], [1, 2, 3, 4], [4, 0], [0, 1, 2, 3, 4]):
            path.run(described[chosen], target)
            got = host.download(target, (len(chosen), *output.shape), np.float32)
            np.testing.assert_array_equal(got, expected[chosen])
    for buffer in memory:
        buffer.free()


def test_an_unknown_variant(host: HostDevice) -> None:
    with pytest.raises(ValueError, match="kernels is 'fast', expected one of naive, tiled, fused"):
        HotPath(host, "fast", Output(size=4))


@pytest.mark.parametrize("variant", VARIANTS)
def test_bad_batches_run_nothing(host: HostDevice, variant: str) -> None:
    output = Output(size=4)
    place = Place(8, 8, 0, 0, 8, 8, 4, 4, 0, 0, 4)
    with HotPath(host, variant, output) as path, host.alloc(192) as memory, host.alloc(192) as target:
        good = describe(host, memory, place, "area")[None]
        wrong = good.copy()
        wrong["pitch"] = 23
        host.fill(target, 7)
        with HostDevice() as other, other.alloc(192) as foreign, pytest.raises(ValueError, match="another device"):
            path.run(good, foreign)
        for pictures, message in (
            (good[:0], "got 0 pictures"),
            (np.repeat(good, 2), "the target of 2 samples has 192 bytes, expected at least 384"),
            (wrong, "picture 0 of 1, 8 x 8 with a pitch of 23 bytes, has a pitch smaller than its row"),
        ):
            with pytest.raises(ValueError, match=message):
                path.run(pictures, target)
        assert (host.download(target, 192, np.uint8) == 7).all()
