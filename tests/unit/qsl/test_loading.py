"""Loading: a preprocessor for each worker thread, closed at the end of it, however that comes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import pytest

from preprocess.base import Geometry, Mark, Recipe, Target
from preprocess.opencv import OpenCV
from sut.datasets.demo import open_demo
from sut.errors import InputError
from sut.qsl import library
from sut.qsl.library import Loading, TensorLibrary

WORKERS = 2
RECIPE = Recipe(name="r", size=32, fit="resize-crop", interpolation="linear", layout="NHWC", dtype="uint8")


class Watched(OpenCV):
    """Counts its pictures; refuses the file ``refused``."""

    made: list[Watched]
    refused: bytes | None

    def __init__(self) -> None:
        super().__init__(RECIPE)
        self.threads: set[int] = set()
        self.pictures = self.closed = 0
        Watched.made.append(self)

    def run(self, encoded: Sequence[bytes], target: Target, mark: Mark) -> list[Geometry]:
        if self.refused in encoded:
            raise ValueError("will not")
        self.threads.add(threading.get_ident())
        self.pictures += len(encoded)
        return super().run(encoded, target, mark)

    def counts(self) -> Mapping[str, int]:
        return {"were watched": self.pictures}

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> TensorLibrary:
    monkeypatch.setattr(library, "_CHUNK", 1)
    monkeypatch.setattr(Watched, "made", [], raising=False)
    monkeypatch.setattr(Watched, "refused", None, raising=False)
    demo = open_demo()
    return TensorLibrary(Loading(demo, Watched, demo.count, WORKERS), RECIPE)


def test_each_worker_makes_one_preprocessor_and_what_all_counted_is_told(held: TensorLibrary) -> None:
    held.load(range(held.count))

    assert 1 <= len(Watched.made) <= WORKERS
    assert all(len(each.threads) <= 1 and each.closed == 1 for each in Watched.made)
    assert held.notes() == [f"{held.count} were watched"]

    held.unload([3, 4])
    held.load([3, 4])
    assert held.notes() == [f"{held.count + 2} were watched"]
    assert all(each.closed == 1 for each in Watched.made)


def test_a_picture_that_ends_loading_leaves_no_preprocessor_open(
    held: TensorLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "refused", open_demo().read(5))
    with pytest.raises(InputError, match=r"\(sample 5\): will not"):
        held.load(range(held.count))

    assert Watched.made
    assert all(each.closed == 1 for each in Watched.made)
    assert held.notes() == [f"{sum(each.pictures for each in Watched.made)} were watched"]
