"""The resize kernel in host form against the oracle and OpenCV: sizes, methods, layouts, memory, and bad input."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.device import SOURCES, Buffer, Device
from kernels.host import HostDevice
from kernels.lab.check import Picture, finish, run_hot_path, run_resize
from kernels.normalize import Output
from kernels.placement import Place
from kernels.resize import PICTURE, Resize, check_pictures, choose_path, describe, tile_of
from kernels.resize import Path as Arithmetic
from preprocess.base import Recipe
from preprocess.oracle import fit, resize_fit

METHODS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}

methods = st.sampled_from(sorted(METHODS))
sides = st.one_of(st.integers(1, 12), st.integers(1, 260))
sizes = st.one_of(st.integers(1, 8), st.integers(1, 48))
seeds = st.integers(0, 2**32 - 1)
LEVELS = Output(size=1, layout="NHWC", dtype="uint8")


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    """Any output but for its size: see ``assert_same``."""
    dtype = draw(st.sampled_from(["float32", "float16", "uint8", "int8"]))
    numbers = {} if dtype == "uint8" else {"mean": (123.68, 116.78, 103.94), "std": (58.395, 57.12, 2.5)}
    layout = draw(st.sampled_from(["NCHW", "NHWC"]))
    return Output(size=1, layout=layout, dtype=dtype, swap=draw(st.booleans()), **numbers)


def examples(count: int):
    return settings(max_examples=count, suppress_health_check=[HealthCheck.function_scoped_fixture])


def whole(width: int, height: int, to_width: int, to_height: int, size: int, left: int = 0, top: int = 0) -> Place:
    return Place(width, height, 0, 0, width, height, to_width, to_height, left, top, size)


def noise(seed: int, place: Place, method: str, padding: int = 0, offset: int = 0, pad_level: int = 114) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (place.height, place.width, 3), np.uint8)
    return Picture(pixels, place, method, padding, offset, pad_level)


def written_by(
    device: Device, pictures: list[Picture], output: Output = LEVELS, gap: int = 0, tile_rows: int | None = None
) -> np.ndarray:
    """Samples of ``output``, as large as the pictures' places say, ``gap`` values between them."""
    plain = replace(output, size=pictures[0].place.size)
    output = replace(plain, stride_bytes=plain.sample_bytes + gap * np.dtype(plain.dtype).itemsize)
    if tile_rows is None:
        written = run_hot_path(device, pictures, output)
    else:
        written = run_resize(device, pictures, output, tile_rows)
    assert written.clean
    return written.values


def assert_same(
    device: Device, pictures: list[Picture], output: Output = LEVELS, gap: int = 0, tile_rows: int | None = None
) -> None:
    """Equal to the oracle, whose levels are OpenCV's but for one where the method is cubic."""
    got = written_by(device, pictures, output, gap, tile_rows)
    truth = [resize_fit(each.pixels, each.place, each.interpolation, each.pad_level) for each in pictures]
    np.testing.assert_array_equal(got, finish(np.stack(truth), output), strict=True)
    for levels, picture in zip(truth, pictures, strict=True):
        where = picture.place
        if where.resized_width * where.resized_height > 1 << 22:
            continue
        full = cv2.resize(
            np.ascontiguousarray(where.cut(picture.pixels)),
            (where.resized_width, where.resized_height),
            interpolation=METHODS[picture.interpolation],
        )
        difference = np.abs(levels[where.rows, where.columns].astype(int) - where.crop(full))
        assert difference.max() <= (1 if picture.interpolation == "cubic" else 0)


@examples(60)
@given(st.data(), seeds, sizes, outputs(), st.integers(0, 5), st.integers(1, 16))
def test_any_sizes_in_one_batch(
    each_order: HostDevice, data: st.DataObject, seed: int, size: int, output: Output, gap: int, tile_rows: int
) -> None:
    pictures = []
    for number in range(data.draw(st.integers(1, 3))):
        width, height = data.draw(sides), data.draw(sides)
        to_width, to_height = (size + data.draw(st.one_of(st.just(0), st.integers(0, 100))) for _ in range(2))
        left, top = (data.draw(st.integers(0, to - size)) for to in (to_width, to_height))
        place = whole(width, height, to_width, to_height, size, left, top)
        padding, offset = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
        pictures.append(noise(seed + number, place, data.draw(methods), padding, offset))
    assert_same(each_order, pictures, output, gap, tile_rows)


@examples(60)
@given(st.data(), seeds, st.one_of(sizes, st.integers(220, 260)), outputs(), st.integers(0, 5), st.integers(1, 16))
def test_any_padding(
    each_order: HostDevice, data: st.DataObject, seed: int, size: int, output: Output, gap: int, tile_rows: int
) -> None:
    pictures = []
    for number in range(data.draw(st.integers(1, 3))):
        width, height, to_width, to_height = (data.draw(sides) for _ in range(4))
        left, top = (data.draw(st.integers(1 - size, to - 1)) for to in (to_width, to_height))
        place = whole(width, height, to_width, to_height, size, left, top)
        pad_level = data.draw(st.sampled_from([0, 1, 114, 255]))
        pictures.append(noise(seed + number, place, data.draw(methods), pad_level=pad_level))
    assert_same(each_order, pictures, output, gap, tile_rows)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", ["letterbox", "top-left", "stretch"])
def test_recipes_of_detectors(host: HostDevice, kind: str, layout: str) -> None:
    size, align = (800, "centre") if kind == "stretch" else (640, "top-left" if kind == "top-left" else "centre")
    fitting = "stretch" if kind == "stretch" else "letterbox"
    recipe = Recipe(name=kind, size=size, fit=fitting, align=align, interpolation="linear")
    pictures = [noise(12, fit(recipe, *each), "linear") for each in ((500, 375), (333, 1000), (1, 700))]
    assert_same(host, pictures, replace(LEVELS, layout=layout))


@pytest.mark.slow
@examples(200)
@given(st.data(), seeds, st.integers(1, 4000), st.integers(1, 3000), st.integers(1, 16), outputs(), methods)
def test_any_size_up_to_a_camera_s(
    host: HostDevice,
    data: st.DataObject,
    seed: int,
    width: int,
    height: int,
    size: int,
    output: Output,
    method: str,
) -> None:
    to_width, to_height = (size + data.draw(st.one_of(st.integers(0, 40), st.integers(0, 5000))) for _ in range(2))
    left, top = (data.draw(st.integers(0, to - size)) for to in (to_width, to_height))
    place = whole(width, height, to_width, to_height, size, left, top)
    assert_same(host, [noise(seed, place, method, padding=data.draw(st.integers(0, 20)))], output)


@examples(80)
@given(seeds, sizes, sizes, st.integers(1, 7), st.integers(1, 7), methods, outputs())
def test_integer_ratios(
    host: HostDevice, seed: int, width: int, height: int, x: int, y: int, method: str, output: Output
) -> None:
    place = whole(width * x, height * y, width, height, min(width, height))
    assert_same(host, [noise(seed, place, method)], output)


@examples(80)
@given(seeds, st.integers(2, 120), st.integers(2, 120), st.booleans(), methods, outputs())
def test_one_axis_grows_and_the_other_shrinks(
    host: HostDevice, seed: int, width: int, height: int, wider: bool, method: str, output: Output
) -> None:
    to = (width * 3 // 2, max(1, height // 2)) if wider else (max(1, width // 2), height * 3 // 2)
    assert_same(host, [noise(seed, whole(width, height, *to, min(*to, 48)), method)], output)


@examples(60)
@given(
    seeds,
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from(["resize-crop", "crop-resize", "stretch", "letterbox"]),
    methods,
    outputs(),
)
def test_recipes(host: HostDevice, seed: int, width: int, height: int, kind: str, method: str, output: Output) -> None:
    recipe = Recipe(name="small", size=33, fit=kind, interpolation=method)
    assert_same(host, [noise(seed, fit(recipe, width, height), method)], output)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sides", [(4000, 3000), (3000, 4000), (20000, 1), (1, 20000), (1, 1)], ids=str)
def test_large_and_extreme_pictures_by_the_recipes(host: HostDevice, sides: tuple[int, int], method: str) -> None:
    recipe = Recipe(name="resnet50", size=24, fit="resize-crop", interpolation=method)
    assert_same(host, [noise(1, fit(recipe, *sides), method)])


@pytest.mark.parametrize("method", METHODS)
def test_a_camera_s_picture_to_the_size_of_a_model(host: HostDevice, method: str) -> None:
    recipe = Recipe(name="resnet50", size=224, fit="resize-crop", interpolation=method)
    assert_same(host, [noise(2, fit(recipe, 4000, 3000), method, padding=5)])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "place",
    [
        whole(20000, 1, 40, 40, 40),
        whole(1, 20000, 40, 40, 40),
        whole(7000, 3, 32, 2, 2, 30, 0),
        whole(6000, 40, 33, 33, 33),
    ],
    ids=["20000 x 1", "1 x 20000", "one column of 219", "6000 x 40"],
)
def test_rows_longer_than_the_staging_memory(host: HostDevice, place: Place, method: str) -> None:
    assert_same(host, [noise(3, place, method)])


@pytest.mark.parametrize("level", [254, 255])
def test_blocks_of_more_pixels_than_float32_adds_up(host: HostDevice, level: int) -> None:
    place = whole(300, 300, 1, 1, 1)
    picture = Picture(np.full((300, 300, 3), level, np.uint8), place, "area")
    picture.pixels[::7, ::3] -= np.uint8(1)
    assert_same(host, [picture, noise(4, place, "area")])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [224, 225, 301])
def test_outputs_of_one_and_of_more_tiles_across(host: HostDevice, size: int, method: str) -> None:
    for layout in ("NCHW", "NHWC"):
        pictures = [noise(9, whole(*sides, size, size, size), method) for sides in ((330, 310), (31, 20))]
        assert_same(host, pictures, replace(LEVELS, layout=layout))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("tile_rows", [1, 4, 5, 16])
def test_tiles_of_any_height(host: HostDevice, tile_rows: int, layout: str) -> None:
    for method in METHODS:
        sides = [(90, 85), (70, 300), (50, 1000), (40, 20), (132, 132)]
        pictures = [noise(10, whole(*each, 66, 66, 66), method) for each in sides]
        assert_same(host, pictures, replace(LEVELS, layout=layout), tile_rows=tile_rows)


def test_tiles_that_the_kernel_does_not_have(host: HostDevice) -> None:
    for tile_rows in (0, 17):
        with pytest.raises(ValueError, match=f"tile_rows is {tile_rows}, expected 1 to 16"):
            Resize(host, Output(size=4), tile_rows)


@pytest.mark.parametrize("offset", range(16))
def test_any_alignment_of_a_row(host: HostDevice, offset: int) -> None:
    # The pitch is odd, so rows begin at every offset as well.
    assert_same(host, [noise(offset, whole(50, 40, 34, 33, 33), method, 15, offset) for method in METHODS])


def test_a_box_of_a_picture_reads_nothing_else(host: HostDevice) -> None:
    place = Place(90, 70, 31, 22, 40, 35, 40, 30, 3, 2, 25)
    picture = noise(5, place, "cubic")
    expected = written_by(host, [picture])
    around = np.ones((70, 90), bool)
    around[22 : 22 + 35, 31 : 31 + 40] = False
    picture.pixels[around] ^= 0xFF
    np.testing.assert_array_equal(written_by(host, [picture]), expected)
    assert_same(host, [picture])


def test_offsets_of_more_than_32_bits(host: HostDevice) -> None:
    picture = noise(6, whole(40, 1, 20, 20, 20), "linear")
    pitch = 5 * 2**31 + 7
    with picture.upload(host) as row, host.alloc(20 * 20 * 3) as target:
        # Only the second row of this picture is read: the first one would lie far below.
        memory = Buffer(host, row.address - pitch, pitch + row.nbytes)
        described = describe(host, memory, Place(40, 2, 0, 1, 40, 1, 20, 20, 0, 0, 20), "linear", pitch=pitch)
        kernel = Resize(host, Output(size=20, layout="NHWC", dtype="uint8"))
        kernel.run(described[None], target)
        got = host.download(target, (20, 20, 3), np.uint8)
    np.testing.assert_array_equal(got, written_by(host, [picture])[0])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_the_order_of_threads_does_not_matter(each_order: HostDevice, dtype: str, layout: str) -> None:
    for method in METHODS:
        sides = [(90, 61), (300, 47), (20, 30), (66, 66), (140, 99)]
        pictures = [noise(7, whole(*each, 33, 33, 33), method, padding=3) for each in sides]
        assert_same(each_order, pictures, Output(size=1, layout=layout, dtype=dtype))


MUTATIONS = {
    "const double start = output * scale,": "const double start = output * scale + 0.5,",
    "static_cast<float>((output + 0.5) * scale - 0.5)": "static_cast<float>((output + 0.5) * scale)",
    "share = static_cast<float>((output + 1)": "share = static_cast<float>((output + 1 + 0.5 * inverse)",
}


@pytest.mark.slow
def test_weights_half_a_pixel_off_are_noticed(host: HostDevice, tmp_path: Path) -> None:
    sources = Path(shutil.copytree(SOURCES, tmp_path / "kernels", ignore=lambda *_: {"host", "__pycache__"}))
    text = (sources / "resize_taps.cuh").read_text(encoding="utf-8")
    for correct, wrong in MUTATIONS.items():
        assert correct in text
        text = text.replace(correct, wrong)
    (sources / "resize_taps.cuh").write_text(text, encoding="utf-8")
    with HostDevice(sources) as mutant:
        for method, sides in (("area", (91, 67)), ("area", (20, 67)), ("linear", (91, 67)), ("cubic", (91, 67))):
            picture = noise(8, whole(*sides, 33, 33, 33), method)
            assert_same(host, [picture])
            with pytest.raises(AssertionError):
                assert_same(mutant, [picture])


@pytest.mark.parametrize(
    ("method", "scale_x", "scale_y", "path"),
    [
        ("area", 1.5, 1.0, Arithmetic.AREA),
        ("area", 3.0, 2.0, Arithmetic.BLOCK_MEAN),
        ("area", 0.99, 5.0, Arithmetic.AREA_LINEAR),
        ("linear", 2.0, 2.0, Arithmetic.BLOCK_MEAN),
        ("linear", 2.0, 4.0, Arithmetic.LINEAR),
        ("cubic", 2.0, 2.0, Arithmetic.CUBIC),
    ],
)
def test_the_path_is_opencv_s(method: str, scale_x: float, scale_y: float, path: Arithmetic) -> None:
    assert choose_path(method, scale_x, scale_y) is path


@given(st.integers(1, 2000), st.integers(1, 5000))
def test_tiles_cover_the_output_within_the_kernel_s_limits(size: int, n: int) -> None:
    columns, rows = tile_of(size, n)
    assert columns % 32 == 0 and 32 <= columns <= 224
    assert 1 <= rows <= 16
    assert columns * -(-size // columns) - size < columns


GOOD = whole(30, 20, 30, 20, 10)


@pytest.mark.parametrize(
    ("place", "arguments", "message"),
    [
        (GOOD, {"pitch": 89}, "30 x 20 with a pitch of 89 bytes, has a pitch smaller than its row"),
        (GOOD, {"pitch": 91}, "the buffer of a picture 30 x 20 .* has 1800 bytes, expected at least 1819"),
        (GOOD, {"offset": 1}, "has 1800 bytes, expected at least 1801"),
        (GOOD, {"offset": -1}, "begins 1 bytes before its buffer"),
        (whole(31, 20, 30, 20, 10), {}, "the buffer of a picture 31 x 20 .* has 1800 bytes, expected at least 1860"),
        (whole(0, 20, 30, 20, 10), {}, "no pixels"),
        (
            whole(30, 20, 30, 20, 21),
            {},
            "a crop of 21 x 21 that is not inside the resized box, and no level of padding",
        ),
        (whole(30, 20, 30, 20, 10, 21), {}, "a crop of 10 x 10 that is not inside"),
        (whole(30, 20, 30, 20, 10, 30), {"pad_level": 0}, "a crop of 10 x 10 that has nothing of the resized box"),
        (whole(30, 20, 30, 20, 10, 0, -10), {"pad_level": 0}, "a crop of 10 x 10 that has nothing of the resized box"),
        (whole(30, 20, 30, 20, 10), {"pad_level": 256}, "a level of padding that is none, expected 0 to 255"),
        (whole(30, 20, 30, 20, 10), {"pad_level": -2}, "a level of padding that is none"),
        (whole(30, 20, 0, 20, 10), {}, "a resized size of no pixels"),
        (Place(30, 20, 1, 0, 30, 20, 30, 20, 0, 0, 10), {}, "a box that is not inside it"),
        (Place(30, 20, 0, -1, 30, 20, 30, 20, 0, 0, 10), {}, "a box that is not inside it"),
    ],
)
def test_pictures_that_contradict_themselves(host: HostDevice, place: Place, arguments: dict, message: str) -> None:
    with host.alloc(30 * 20 * 3) as memory, pytest.raises(ValueError, match=message):
        describe(host, memory, place, "area", **arguments)


def test_an_unknown_method(host: HostDevice) -> None:
    with host.alloc(1800) as memory, pytest.raises(ValueError, match="interpolation is lanczos, expected area"):
        describe(host, memory, GOOD, "lanczos")


def test_memory_of_another_device_or_freed(host: HostDevice) -> None:
    with HostDevice() as other, other.alloc(1800) as memory, pytest.raises(ValueError, match="another device"):
        describe(host, memory, GOOD, "area")
    memory = host.alloc(1800)
    memory.free()
    with pytest.raises(ValueError, match="has been freed"):
        describe(host, memory, GOOD, "area")


def test_batches_that_do_not_fit_run_nothing(host: HostDevice) -> None:
    output = Output(size=10)
    kernel = Resize(host, output)
    with host.alloc(1800) as memory, host.alloc(output.bytes_for(2)) as target:
        good = describe(host, memory, GOOD, "area")[None]
        host.fill(target, 7)
        for pictures, message in (
            (good[:0], "got 0 pictures, expected 1 to 65535"),
            (np.zeros(65536, PICTURE), "got 65536 pictures"),
            (np.repeat(good, 3), "the target of 3 samples has 2400 bytes, expected at least 3600"),
            (np.concatenate([good, np.zeros(1, PICTURE)]), "picture 1 of 2, 0 x 0 .* has no pixels"),
            (np.zeros(2, np.float32), "pictures are float32"),
        ):
            with pytest.raises(ValueError, match=message):
                kernel.run(pictures, target)
        assert (host.download(target, 2400, np.uint8) == 7).all()
    unknown = good.copy()
    unknown["path"] = len(Arithmetic)
    with pytest.raises(ValueError, match="an unknown path"):
        check_pictures(unknown, 10)
