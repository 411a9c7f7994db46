"""Memory on a device that is not owned where it is used, and slots that lie in it."""

from __future__ import annotations

import math

import numpy as np

from kernels.device import Buffer, Device
from preprocess.base import Recipe, Target, check_buffer


class Lent(Buffer):
    """Memory of a device that somebody else frees."""

    def free(self) -> None:
        """Forget it."""
        self.freed = True


def lent_slot(recipe: Recipe, target: Target, n: int, device: Device, place: str) -> Lent:
    """The target's only buffer, in the memory of ``device``, once it is known to take ``n`` pictures of ``recipe``.

    The buffer is anything with ``__cuda_array_interface__``. Raises ``ValueError`` for a slot on another place than
    ``place``, another dtype, shape or number of rows, and for a buffer that is strided.
    """
    if target.place != place:
        raise ValueError(f"the slot lies on {target.place}, expected {place}: choose that GPU for both")
    name, array = next(iter(target.buffers.items()))
    interface = array.__cuda_array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    check_buffer(recipe, name, dtype, shape, n)
    dense = tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if tuple(interface.get("strides") or dense) != dense:
        raise ValueError(f"input {name} is strided, expected a C-contiguous buffer")
    return Lent(device, interface["data"][0], dtype.itemsize * math.prod(shape))
