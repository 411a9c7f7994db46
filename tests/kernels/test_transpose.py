"""The transposes against NumPy's own, bit for bit, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.device import Buffer
from kernels.host import HostDevice
from kernels.transpose import transpose, transpose_images

DTYPES = ("float32", "float16", "uint8")
FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> NDArray[Any]:
    """Random bits: every value there is, NaN included."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8).view(dtype).reshape(shape)


def bits(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def turned(device: HostDevice, matrix: NDArray[Any], variant: str, shift: int = 0) -> NDArray[Any]:
    """The device's transpose; with ``shift``, both matrices begin that many values into their buffers."""
    rows, columns = matrix.shape
    size = matrix.itemsize
    padded = np.concatenate([noise((shift,), matrix.dtype.name), matrix.ravel()])
    with device.upload(padded) as source, device.alloc(padded.nbytes) as target:
        ends = [np.uint64(buffer.address + shift * size) for buffer in (source, target)]
        transpose(device, *ends, rows, columns, matrix.dtype.name, variant)
        return device.download(target, padded.shape, matrix.dtype)[shift:].reshape(columns, rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["naive", "tiled"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 300), (300, 1), (32, 32), (64, 128), (128, 128), (65, 33), (129, 127), (200, 131), (131, 200)]
)
def test_a_matrix_is_turned(each_order: HostDevice, variant: str, dtype: str, shape: tuple[int, int]) -> None:
    matrix = noise(shape, dtype)
    assert np.array_equal(bits(turned(each_order, matrix, variant)), bits(matrix.T))


@pytest.mark.parametrize("variant", ["tile16x16", "tile16x17"])
@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (48, 32), (17, 15), (33, 100)])
def test_the_tiles_of_the_literature_turn_it_too(each_order: HostDevice, variant: str, shape: tuple[int, int]) -> None:
    matrix = noise(shape, "float32")
    assert np.array_equal(bits(turned(each_order, matrix, variant)), bits(matrix.T))


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), dtype=st.sampled_from(DTYPES), shift=st.integers(0, 5))
@FEW
def test_any_size_at_any_address(host: HostDevice, rows: int, columns: int, dtype: str, shift: int) -> None:
    matrix = noise((rows, columns), dtype, seed=rows)
    assert np.array_equal(bits(turned(host, matrix, "tiled", shift)), bits(matrix.T))


def relaid(device: HostDevice, pictures: NDArray[Any], to: str, variant: str, shift: int = 0) -> NDArray[Any]:
    """Pictures of shape (n, pixels, 3) or (n, 3, pixels), in the other layout."""
    n, pixels = len(pictures), pictures[0].size // 3
    padded = np.concatenate([noise((shift,), pictures.dtype.name), pictures.ravel()])
    with device.upload(padded) as source, device.alloc(padded.nbytes) as target:
        ends = [np.uint64(buffer.address + shift * pictures.itemsize) for buffer in (source, target)]
        transpose_images(device, *ends, n, pixels, pictures.dtype.name, to, variant)
        flat = device.download(target, padded.shape, pictures.dtype)[shift:]
    return flat.reshape((n, 3, pixels) if to == "NCHW" else (n, pixels, 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("to", ["NCHW", "NHWC"])
@pytest.mark.parametrize("variant", ["naive", "tiled"])
@pytest.mark.parametrize(("n", "pixels"), [(1, 1), (3, 16), (2, 4096), (2, 4112), (1, 5000), (3, 63 * 65)])
def test_pictures_change_their_layout(
    each_order: HostDevice, variant: str, to: str, dtype: str, n: int, pixels: int
) -> None:
    pictures = noise((n, pixels, 3) if to == "NCHW" else (n, 3, pixels), dtype)
    assert np.array_equal(bits(relaid(each_order, pictures, to, variant)), bits(pictures.transpose(0, 2, 1)))


@given(
    n=st.integers(1, 4),
    pixels=st.integers(1, 3000) | st.integers(1, 600).map(lambda n: 16 * n),
    dtype=st.sampled_from(DTYPES),
    to=st.sampled_from(["NCHW", "NHWC"]),
    shift=st.sampled_from([0, 0, 1, 16]),
)
@FEW
def test_any_pictures_at_any_address(host: HostDevice, n: int, pixels: int, dtype: str, to: str, shift: int) -> None:
    pictures = noise((n, pixels, 3) if to == "NCHW" else (n, 3, pixels), dtype, seed=pixels)
    assert np.array_equal(bits(relaid(host, pictures, to, "tiled", shift)), bits(pictures.transpose(0, 2, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("to", ["NCHW", "NHWC"])
def test_aligned_pictures_move_in_words_of_16_bytes_whole_sectors_only(
    counting: HostDevice, to: str, dtype: str
) -> None:
    pixels = 2 * 4096
    relaid(counting, noise((1, pixels, 3), dtype), to, "tiled")
    nbytes = 3 * pixels * np.dtype(dtype).itemsize
    counts = counting.take_counts()
    for site in counts:
        if site.space == "global":
            assert (site.bytes, site.sectors, site.requests) == (nbytes, nbytes // 32, nbytes // 512), site
        else:
            assert site.max_ways == 1, site
    assert len(counts) == 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiled_touches_each_sector_once_and_no_bank_twice(counting: HostDevice, dtype: str) -> None:
    matrix = noise((256, 384), dtype)
    turned(counting, matrix, "tiled")
    for site in counting.take_counts():
        if site.space == "global":
            assert (site.bytes, site.sectors, site.requests) == (
                matrix.nbytes,
                matrix.nbytes // 32,
                matrix.nbytes // 128,
            )
        else:
            assert site.max_ways == 1, site


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"dtype": "int32"}, "cannot transpose int32, expected float32, float16, uint8"),
        ({"rows": 0}, "rows is 0, expected 1 to"),
        ({"columns": 2**31}, "columns is 2147483648"),
        ({"variant": "tile16x17", "dtype": "uint8"}, "the variant tile16x17 moves float32, got uint8"),
        ({"rows": 9}, "source has 256 bytes, expected at least 288"),
        ({"variant": "fast"}, "no kernel .transpose_fast_f32."),
    ],
)
def test_bad_matrices_are_refused(host: HostDevice, change: dict[str, Any], fragment: str) -> None:
    arguments: dict[str, Any] = {"rows": 8, "columns": 8, "dtype": "float32", "variant": "tiled"}
    with host.alloc(256) as source, host.alloc(256) as target, pytest.raises(ValueError, match=fragment):
        transpose(host, source, target, **(arguments | change))


def test_one_buffer_is_not_two(host: HostDevice) -> None:
    with host.alloc(256) as one, pytest.raises(ValueError, match="source and target are one buffer"):
        transpose(host, one, one, 8, 8, "float32")


def test_too_small_a_target_for_pictures_is_refused(host: HostDevice) -> None:
    source, target = host.alloc(3 * 64), host.alloc(3 * 63)
    with source, target, pytest.raises(ValueError, match="target has 189 bytes, expected at least 192"):
        transpose_images(host, source, target, 1, 64, "uint8", "NCHW")
    assert isinstance(target, Buffer) and target.freed
