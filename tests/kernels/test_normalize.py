"""What an output means, and the tail alone in host form: every layout, dtype and size."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.host import HostDevice
from kernels.lab.check import finish, write_guarded
from kernels.normalize import Normalize, Output

MEAN, STD = (123.68, 116.78, 103.94), (58.395, 57.12, 2.5)
WAYS = [("NHWC", "NCHW"), ("NHWC", "NHWC"), ("NCHW", "NCHW")]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 70),
    st.sampled_from(WAYS),
    st.sampled_from(["float32", "float16", "uint8", "int8"]),
    st.booleans(),
    st.integers(0, 5),
)
def test_any_size_layout_and_dtype(
    each_order: HostDevice, seed: int, n: int, size: int, way: tuple[str, str], dtype: str, swap: bool, gap: int
) -> None:
    source, layout = way
    plain = Output(size=size, layout=layout, dtype=dtype)
    stride = plain.sample_bytes + gap * np.dtype(dtype).itemsize
    mean, std = ((0.0,) * 3, (1.0,) * 3) if dtype == "uint8" else (MEAN, STD)
    output = Output(size=size, layout=layout, dtype=dtype, swap=swap, mean=mean, std=std, stride_bytes=stride)
    levels = np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)
    given_pixels = levels if source == "NHWC" else np.ascontiguousarray(levels.transpose(0, 3, 1, 2))
    tail = Normalize(each_order, output, source)

    with each_order.upload(given_pixels) as pixels:
        written = write_guarded(each_order, output, n, lambda target: tail.run(pixels, target, n))
    tail.close()

    assert written.clean
    np.testing.assert_array_equal(written.values, finish(levels, output), strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_table_is_the_formula_on_every_level(dtype: str) -> None:
    output = Output(size=16, layout="NHWC", dtype=dtype, mean=MEAN, std=STD)
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (1, 16, 16, 3))
    values = output.values()
    np.testing.assert_array_equal(finish(levels, output).reshape(256, 3).T, values, strict=True)
    np.testing.assert_array_equal(output.table().astype(f"u{values.itemsize}").view(values.dtype), values)


def test_int8_is_rounded_half_to_even_and_saturates() -> None:
    values = Output(size=1, dtype="int8", mean=(1.0, 128.0, 0.0), std=(2.0, 0.5, 1.0)).values()
    assert values[0, [0, 2, 4, 6]].tolist() == [0, 0, 2, 2]  # -0.5, 0.5, 1.5, 2.5
    assert values[1, [0, 64, 128, 255]].tolist() == [-128, -128, 0, 127]
    assert values[2, [127, 128, 255]].tolist() == [127, 127, 127]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size is 0, expected 1 to 16384"),
        ({"size": 16385}, "size is 16385"),
        ({"layout": "CHWN"}, "layout is CHWN, expected NCHW or NHWC"),
        ({"dtype": "float64"}, "dtype is float64, expected one of float32"),
        ({"std": (1.0, 0.0, 1.0)}, "expected no zero in it"),
        ({"dtype": "uint8", "mean": MEAN}, "dtype uint8 with mean"),
        ({"stride_bytes": 47}, "stride_bytes is 47, expected a multiple of float32's 4 bytes, at least the 48"),
        ({"stride_bytes": 50}, "stride_bytes is 50"),
    ],
)
def test_outputs_that_contradict_themselves(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Output(**{"size": 2, **changes})


def test_bad_input_runs_nothing(host: HostDevice) -> None:
    with pytest.raises(ValueError, match="NCHW pixels to NHWC output"):
        Normalize(host, Output(size=4, layout="NHWC"), "NCHW")
    output = Output(size=4)
    tail = Normalize(host, output)
    with host.alloc(96) as pixels, host.alloc(384) as target, HostDevice() as other, other.alloc(384) as foreign:
        for arguments, message in (
            ((pixels, target, 0), "got 0 pictures"),
            ((pixels, target, 3), "the target of 3 samples has 384 bytes, expected at least 576"),
            ((target, pixels, 1), "the target of 1 samples has 96 bytes"),
            ((foreign, target, 2), "the pixels of 2 samples lies on host, another device"),
            ((pixels, foreign, 2), "the target of 2 samples lies on host, another device"),
        ):
            with pytest.raises(ValueError, match=message):
                tail.run(*arguments)
        tail.run(pixels, target, 2)
    tail.close()
