"""The teaching kernels: copies are copies, and both matrix products add the same values in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.host import HostDevice

FEW = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kernel", ["copy_linear_f32", "copy_coalesced_f32"])
@pytest.mark.parametrize(("count", "each"), [(1, 1), (1000, 3), (4096, 8), (4097, 8), (5, 64)])
def test_a_copy_is_a_copy(each_order: HostDevice, kernel: str, count: int, each: int) -> None:
    values = np.random.default_rng(count).standard_normal(count, np.float32)
    blocks = -(-count // (128 * each))
    with each_order.upload(values) as source, each_order.alloc(values.nbytes) as target:
        args = [source, target, np.int32(count), np.int32(each)]
        each_order.launch("lab/study", kernel, (blocks, 1, 1), (128, 1, 1), args)
        assert np.array_equal(each_order.download(target, count, np.float32), values)


def product(device: HostDevice, kernel: str, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[Any]:
    (m, k), n = a.shape, b.shape[1]
    with device.upload(a) as on_a, device.upload(b) as on_b, device.alloc(4 * m * n) as on_c:
        args = [on_a, on_b, on_c, np.int32(m), np.int32(n), np.int32(k)]
        device.launch("lab/study", kernel, (-(-n // 16), -(-m // 16), 1), (16, 16, 1), args)
        return device.download(on_c, (m, n), np.float32)


def in_order(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product in float32, added in the order of k without fused multiply-add."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for i in range(a.shape[1]):
        total += a[:, i : i + 1] * b[i]
    return total


def matrices(m: int, n: int, k: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng([m, n, k])
    return random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)


@pytest.mark.parametrize("kernel", ["matmul_naive_f32", "matmul_tiled_f32"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 16, 16), (33, 17, 50), (48, 64, 31)])
def test_a_product_is_equal_bit_for_bit(each_order: HostDevice, kernel: str, shape: tuple[int, int, int]) -> None:
    a, b = matrices(*shape)
    assert np.array_equal(product(each_order, kernel, a, b), in_order(a, b))


@given(m=st.integers(1, 70), n=st.integers(1, 70), k=st.integers(1, 70))
@FEW
def test_products_of_any_size(host: HostDevice, m: int, n: int, k: int) -> None:
    a, b = matrices(m, n, k)
    for kernel in ("matmul_naive_f32", "matmul_tiled_f32"):
        assert np.array_equal(product(host, kernel, a, b), in_order(a, b))
