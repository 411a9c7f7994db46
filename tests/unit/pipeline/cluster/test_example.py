"""The docs' example of Ray Serve: what a replica answers; Serve itself is not installed."""

from __future__ import annotations

import runpy

from sut.datasets.registry import open_dataset
from tests.children import CHECKOUT


def test_a_replica_of_the_example_finds_the_right_class() -> None:
    example = runpy.run_path(str(CHECKOUT / "docs/examples/ray_serve.py"))
    photos = open_dataset("demo", None, None, None)
    replica = example["Labels"]()

    found = [replica.label(photos.read(index)) for index in range(photos.count)]

    assert found == list(photos.truth)
