"""The tensor cache: what is half-written, changed or made for something else is made again, never used."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from preprocess.base import Geometry, Recipe
from preprocess.opencv import OpenCV
from sut.config import RunConfig
from sut.datasets.base import DataSet
from sut.datasets.sums import Sum
from sut.errors import InputError
from sut.qsl.library import Loading, TensorLibrary
from sut.qsl.pictures import Known
from sut.qsl.preprocessed import RECIPE_FILE, SUMS_FILE, PreprocessedDir
from sut.qsl.tensor_cache import TensorCache
from sut.qsl.tensor_store import TensorStore
from sut.run.planning import apply_flags
from tests.children import CHECKOUT, run_python

RECIPE = Recipe(name="small", size=48, fit="resize-crop", interpolation="linear", mean=(1.0, 2.0, 3.0))
GEOMETRY = Geometry(40, 30, 0.5, 0.25, 3.0, 4.0)
PICTURE = Known(Sum(2**33, 2**32 - 1), dark=True)
PICTURES = 20


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    root = tmp_path / "pictures"
    root.mkdir()
    files = tuple(f"{number}.png" for number in range(PICTURES))
    for number, file in enumerate(files):
        draw(root / file, 10 * number)
    return DataSet("folder", root, files, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def draw(path: Path, value: int) -> None:
    path.write_bytes(cv2.imencode(".png", np.full((60, 70, 3), value, np.uint8))[1].tobytes())


def age(dataset: DataSet) -> None:
    """No clock is so coarse that a tensor made now is as old as its picture."""
    for file in dataset.files:
        os.utime(dataset.root / file, (0, 0))


def row(value: float) -> NDArray[Any]:
    return np.full(RECIPE.sample_shape, value, RECIPE.dtype)


def keep(cache: TensorStore, index: int, value: float) -> None:
    assert cache.take(index, row(0)) is None
    cache.keep(index, row(value), GEOMETRY, PICTURE)


def taken(cache: TensorStore, index: int) -> float | None:
    found = row(-1)
    known = cache.take(index, found)
    if known is None:
        return None
    assert known == (GEOMETRY, PICTURE)
    assert (found == found.flat[0]).all()
    return float(found.flat[0])


def load(dataset: DataSet, store: TensorStore | None, recipe: Recipe = RECIPE) -> TensorLibrary:
    library = TensorLibrary(Loading(dataset, lambda: OpenCV(recipe), dataset.count, 2), recipe, store)
    library.load(range(dataset.count))
    return library


def tensors(library: TensorLibrary) -> NDArray[Any]:
    return library.storage[library.row_of]


def cache_file(folder: Path) -> Path:
    [file] = folder.glob("*.tensors")
    return file


def test_a_second_library_takes_everything_from_the_cache(folder: Path, dataset: DataSet) -> None:
    plain = load(dataset, None)
    first = load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
    second = load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))

    for library in (first, second):
        np.testing.assert_array_equal(tensors(library), tensors(plain))
        assert library.geometry.tolist() == plain.geometry.tolist()
    assert plain.notes() == []
    assert first.notes() == [f"0 of 20 samples came preprocessed from the tensor cache {cache_file(folder)}"]
    assert second.notes() == [f"20 of 20 samples came preprocessed from the tensor cache {cache_file(folder)}"]


STORES: dict[str, Callable[[Path, DataSet], TensorStore]] = {
    "the cache": lambda folder, dataset: TensorCache(folder, dataset, RECIPE, OpenCV),
    "a folder": lambda folder, dataset: PreprocessedDir(folder, dataset, RECIPE, OpenCV, ready=False),
}


@pytest.mark.parametrize("store", STORES)
def test_a_run_on_ready_tensors_says_of_the_pictures_what_the_first_one_said(
    folder: Path, dataset: DataSet, store: str
) -> None:
    deep = cv2.imencode(".png", np.full((60, 70, 3), 4095, np.uint16))[1].tobytes()
    for file in dataset.files[1:]:
        (dataset.root / file).write_bytes(deep)
    age(dataset)

    first, second = (load(dataset, STORES[store](folder, dataset)) for _ in range(2))
    (dataset.root / "5.png").touch()
    mixed = load(dataset, STORES[store](folder, dataset))

    counts = [library.notes()[0].split(" of ")[0] for library in (first, second, mixed)]
    assert counts == ["0", "20", "19"]
    equal = "18 of 20 pictures that were loaded are equal to others (90 %)"
    dark = "19 pictures of 16 bits use 12 or fewer, such as 1.png: OpenCV keeps the upper 8, so they are nearly black"
    for library in (first, second, mixed):
        assert library.notes()[1:] == [equal, dark]
        assert library.rules_broken() == [equal]


def test_tensors_made_elsewhere_are_equal_by_their_values(npy: Path, dataset: DataSet) -> None:
    shutil.copy(npy / "0.png.npy", npy / "1.png.npy")

    library = load(dataset, PreprocessedDir(npy, dataset, RECIPE, OpenCV, ready=True))

    assert library.notes()[1:] == ["1 of 20 pictures that were loaded are equal to others (5 %)"]


def test_a_folder_that_was_filled_before_pictures_were_noted_is_still_ours(tmp_path: Path, dataset: DataSet) -> None:
    age(dataset)
    load(dataset, STORES["a folder"](tmp_path / "filled", dataset))
    sums = tmp_path / "filled" / SUMS_FILE
    lines = [line.split(" ") for line in sums.read_text().splitlines()]
    sums.write_text("".join(f"{line[0]}  {line[-1]}\n" for line in lines))

    again = load(dataset, STORES["a folder"](tmp_path / "filled", dataset))

    assert (again.notes()[0].split(" of ")[0], again.notes()[1:], again.rules_broken()) == ("20", [], [])


def test_loading_again_does_not_count_as_found(folder: Path, dataset: DataSet) -> None:
    library = load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
    library.unload(range(PICTURES))
    library.load(range(PICTURES))

    assert library.notes()[0].startswith("0 of 20 samples")


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_every_kind_of_tensor_survives(folder: Path, dataset: DataSet, dtype: Any, layout: Any) -> None:
    recipe = replace(RECIPE, dtype=dtype, layout=layout, mean=(0.0, 0.0, 0.0))

    load(dataset, TensorCache(folder, dataset, recipe, OpenCV), recipe)
    again = load(dataset, TensorCache(folder, dataset, recipe, OpenCV), recipe)

    np.testing.assert_array_equal(tensors(again), tensors(load(dataset, None, recipe)))
    assert again.notes()[0].startswith("20 of 20")


def test_a_changed_picture_is_made_again(folder: Path, dataset: DataSet) -> None:
    load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
    changed = dataset.root / dataset.files[3]
    before = changed.stat()
    draw(changed, 255)
    # Of the same size and date as before, which only the change time tells.
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.stat().st_mtime_ns == before.st_mtime_ns

    again = load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))

    assert again.notes()[0].startswith("19 of 20")
    np.testing.assert_array_equal(tensors(again), tensors(load(dataset, None)))


def test_a_picture_that_changes_while_it_is_read_is_not_kept_as_the_new_one(folder: Path, dataset: DataSet) -> None:
    with closing(TensorCache(folder, dataset, RECIPE, OpenCV)) as cache:
        assert cache.take(0, row(0)) is None
        draw(dataset.root / dataset.files[0], 99)
        cache.keep(0, row(1), GEOMETRY, PICTURE)

        assert taken(cache, 0) is None


def test_a_picture_that_is_gone_is_named(folder: Path, dataset: DataSet) -> None:
    load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
    (dataset.root / "7.png").unlink()

    with pytest.raises(InputError, match=r"7\.png \(sample 7\): .*No such file"):
        load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))


class Other(OpenCV):
    name = "other"


class Newer(OpenCV):
    @classmethod
    def version(cls) -> str:
        return "99"


def test_nothing_is_shared_between_recipes_preprocessors_versions_and_folders(folder: Path, dataset: DataSet) -> None:
    elsewhere = replace(dataset, root=Path(shutil.copytree(dataset.root, dataset.root.with_name("copies"))))
    kinds = [
        (dataset, RECIPE, OpenCV),
        (dataset, replace(RECIPE, mean=(1.0, 2.0, 3.5)), OpenCV),
        (dataset, replace(RECIPE, interpolation="area"), OpenCV),
        (dataset, RECIPE, Other),
        (dataset, RECIPE, Newer),
        (elsewhere, RECIPE, OpenCV),
    ]
    caches = [TensorCache(folder, *kind) for kind in kinds]
    for number, cache in enumerate(caches):
        keep(cache, 0, number)

    assert [taken(TensorCache(folder, *kind), 0) for kind in kinds] == [0, 1, 2, 3, 4, 5]


def test_the_code_of_the_preprocessor_is_part_of_the_key(
    folder: Path, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(TensorCache(folder, dataset, RECIPE, OpenCV), 0, 1)
    monkeypatch.setattr("sut.qsl.tensor_cache._code_digest", lambda kind: "another")

    assert taken(TensorCache(folder, dataset, RECIPE, OpenCV), 0) is None


def test_a_file_of_another_recipe_under_this_ones_name_is_replaced(folder: Path, dataset: DataSet) -> None:
    keep(TensorCache(folder, dataset, RECIPE, OpenCV), 0, 1)
    ours = cache_file(folder)
    other = tempting = TensorCache(folder, dataset, replace(RECIPE, std=(2.0, 2.0, 2.0)), OpenCV)
    keep(tempting, 0, 2)
    [theirs] = set(folder.glob("*.tensors")) - {ours}
    theirs.rename(ours)

    cache = TensorCache(folder, dataset, RECIPE, OpenCV)

    assert taken(cache, 0) is None
    assert taken(other, 0) == 2, "who has it open goes on with what he has"


def test_a_file_of_an_earlier_format_is_replaced(
    folder: Path, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("sut.qsl.tensor_cache._MAGIC", b"SUT tensors 1\n\0\0")
        keep(TensorCache(folder, dataset, RECIPE, OpenCV), 0, 1)

    assert taken(TensorCache(folder, dataset, RECIPE, OpenCV), 0) is None


def test_more_and_fewer_samples_share_a_file(folder: Path, dataset: DataSet) -> None:
    few = replace(dataset, files=dataset.files[:3])
    small = TensorCache(folder, few, RECIPE, OpenCV)
    keep(small, 2, 2)

    big = TensorCache(folder, dataset, RECIPE, OpenCV)
    keep(big, 19, 19)

    assert (taken(big, 2), taken(small, 2)) == (2, 2)
    assert taken(TensorCache(folder, few, RECIPE, OpenCV), 2) == 2
    assert taken(TensorCache(folder, dataset, RECIPE, OpenCV), 19) == 19


def test_another_order_of_the_list_is_noticed(folder: Path, dataset: DataSet) -> None:
    load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
    turned = replace(dataset, files=dataset.files[::-1])

    again = load(turned, TensorCache(folder, turned, RECIPE, OpenCV))

    assert again.notes()[0].startswith("0 of 20")
    np.testing.assert_array_equal(tensors(again), tensors(load(turned, None)))


@pytest.mark.parametrize("at", ["header", "record", "row"])
def test_a_damaged_byte_is_noticed(folder: Path, dataset: DataSet, at: str) -> None:
    keep(TensorCache(folder, dataset, RECIPE, OpenCV), 0, 1)
    place = {"header": 20, "record": 4096 + 50, "row": 2 * 4096 + 5}[at]
    with cache_file(folder).open("r+b") as file:
        file.seek(place)
        [byte] = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))

    assert taken(TensorCache(folder, dataset, RECIPE, OpenCV), 0) is None


@pytest.mark.parametrize("size", [0, 1, 60, 5000, 2 * 4096 + 100])
def test_a_file_that_was_cut_off_is_made_whole(folder: Path, dataset: DataSet, size: int) -> None:
    load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
    os.truncate(cache_file(folder), size)

    again = load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))

    assert again.notes()[0].startswith("0 of 20")
    np.testing.assert_array_equal(tensors(again), tensors(load(dataset, None)))
    assert load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV)).notes()[0].startswith("20 of 20")


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from tests.unit.qsl.test_tensor_cache import PICTURES, RECIPE, load
from preprocess.opencv import OpenCV
from sut.datasets.base import DataSet
from sut.qsl.tensor_cache import TensorCache

folder, pictures, last, share = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
dataset = DataSet("folder", pictures, tuple(f"{number}.png" for number in range(PICTURES)), None)
real = os.pwrite
calls = 0

writing = threading.Lock()

def dying(descriptor, data, at):
    global calls
    with writing:  # or the other worker writes on between the last write and the end
        calls += 1
        if calls == last:
            real(descriptor, data[: int(len(data) * share)], at)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(descriptor, data, at)

os.pwrite = dying
load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
"""


@pytest.mark.parametrize(("last", "share"), [(1, 0.5), (2, 0.5), (13, 0.9), (14, 0.0), (40, 0.99)])
def test_a_run_killed_in_the_middle_of_a_write(folder: Path, dataset: DataSet, last: int, share: float) -> None:
    child = run_python("-c", KILLED, folder, dataset.root, str(last), str(share), cwd=CHECKOUT)
    assert child.code == -9, child.err

    again = load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))

    found = int(again.notes()[0].split(" of ")[0])
    assert (last - 3) // 2 <= found <= last // 2, "what was whole is used, and nothing else"
    np.testing.assert_array_equal(tensors(again), tensors(load(dataset, None)))
    assert load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV)).notes()[0].startswith("20 of 20")


def test_a_run_killed_while_it_makes_the_file(folder: Path, dataset: DataSet) -> None:
    folder.mkdir()
    keep(TensorCache(folder, dataset, RECIPE, OpenCV), 0, 1)
    file = cache_file(folder)
    file.with_name(".0123456789abcdef.part").write_bytes(file.read_bytes()[:30])
    file.unlink()

    keep(TensorCache(folder, dataset, RECIPE, OpenCV), 0, 2)

    assert taken(TensorCache(folder, dataset, RECIPE, OpenCV), 0) == 2
    assert cache_file(folder) == file


def test_several_at_once_while_a_picture_changes(folder: Path, dataset: DataSet) -> None:
    wrong: list[str] = []

    def work() -> None:
        for _ in range(10):
            library = load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
            # A linear resize of one colour is that colour, so a row mixed from two pictures would show.
            mixed = (tensors(library).reshape(PICTURES, 3, -1).std(axis=2) > 1e-3).any(axis=1)
            wrong.extend(dataset.files[index] for index in np.flatnonzero(mixed))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    new = dataset.root / "new"
    for value in range(100):
        draw(new, value)
        new.replace(dataset.root / dataset.files[0])
    for thread in threads:
        thread.join()

    assert wrong == []
    final = load(dataset, TensorCache(folder, dataset, RECIPE, OpenCV))
    np.testing.assert_array_equal(tensors(final), tensors(load(dataset, None)))


@pytest.mark.timed
@pytest.mark.slow
def test_a_second_start_on_a_thousand_pictures_takes_less_than_two_seconds(tmp_path: Path) -> None:
    recipe = replace(RECIPE, size=224)
    draw(tmp_path / "0.png", 100)
    for number in range(1, 1000):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "0.png")
    dataset = DataSet("folder", tmp_path, tuple(f"{number}.png" for number in range(1000)), None)
    load(dataset, TensorCache(tmp_path / "cache", dataset, recipe, OpenCV), recipe)

    begin = time.perf_counter()
    again = load(dataset, TensorCache(tmp_path / "cache", dataset, recipe, OpenCV), recipe)
    took_s = time.perf_counter() - begin

    assert again.notes()[0].startswith("1,000 of 1,000")
    assert took_s < 2
    shutil.rmtree(tmp_path / "cache")


def no_space(*arguments: Any) -> int:
    raise OSError(28, "No space left on device")


def test_a_disk_that_fills_up(folder: Path, dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(folder, dataset, RECIPE, OpenCV)
    monkeypatch.setattr(os, "pwrite", no_space)

    with pytest.raises(InputError, match=f"cannot keep tensors in {folder}: No space left on device; .* --cache_dir"):
        load(dataset, cache)
    monkeypatch.undo()
    assert taken(cache, 0) is None


def test_a_disk_without_room_is_refused_before_the_work(
    folder: Path, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TensorCache(folder, dataset, RECIPE, OpenCV)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64 * 2**20 + 10000))

    with pytest.raises(InputError, match=r"64 MiB free, 65 MiB needed for the tensor cache; make room"):
        load(dataset, cache)
    monkeypatch.undo()
    load(dataset, cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert load(dataset, cache).notes()[0].startswith("20 of 20"), "what is there needs no room"


def test_a_folder_that_cannot_be(tmp_path: Path, dataset: DataSet) -> None:
    (tmp_path / "file").write_text("in the way")

    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=f"cannot keep tensors in {folder}: "):
            TensorCache(folder, dataset, RECIPE, OpenCV)


def test_the_default_folder_follows_the_cache(
    tmp_path: Path, dataset: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path))

    keep(TensorCache(None, dataset, RECIPE, OpenCV), 0, 1)

    assert taken(TensorCache(tmp_path / "tensors", dataset, RECIPE, OpenCV), 0) == 1


@pytest.fixture
def npy(tmp_path: Path, dataset: DataSet) -> Iterator[Path]:
    """Tensors as the reference harness writes them, below its cache directory."""
    place = tmp_path / "npy" / "preprocessed" / "folder" / "NCHW"
    place.mkdir(parents=True)
    for number, file in enumerate(dataset.files):
        np.save(place / file, row(number))
    yield place


def test_ready_tensors_are_used_as_they_are(npy: Path, dataset: DataSet) -> None:
    for folder in (npy, npy.parents[2]):
        library = load(dataset, PreprocessedDir(folder, dataset, RECIPE, OpenCV, ready=True))

        assert tensors(library)[:, 0, 0, 0].tolist() == list(range(PICTURES))
        assert library.notes() == [f"20 of 20 samples came preprocessed from the preprocessed folder {npy}"]
        assert library.rules_broken() == [f"tensors made elsewhere: 20, in the preprocessed folder {npy}"]


def test_a_missing_ready_tensor_is_named(npy: Path, dataset: DataSet) -> None:
    for name in ("3.png", "5.png"):
        (npy / f"{name}.npy").unlink()

    with pytest.raises(InputError, match=rf"2 of 20 tensors are missing in {npy}: 3\.png\.npy, 5\.png\.npy"):
        PreprocessedDir(npy, dataset, RECIPE, OpenCV, ready=True)
    with pytest.raises(InputError, match="nowhere does not exist"):
        PreprocessedDir(npy / "nowhere", dataset, RECIPE, OpenCV, ready=True)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (np.zeros((3, 48, 48), np.float64), r"4\.png\.npy \(sample 4\) is float64 \(3, 48, 48\)"),
        (np.zeros((48, 48, 3), np.float32), r"is float32 \(48, 48, 3\); the recipe small needs float32 \(3, 48, 48\)"),
        (np.array([{}]), r"not a whole \.npy file"),
        (b"", r"not a whole \.npy file"),
        (b"\x93NUMPY\x01\x00", r"not a whole \.npy file"),
    ],
)
def test_a_ready_tensor_that_does_not_fit(npy: Path, dataset: DataSet, content: Any, fragment: str) -> None:
    if isinstance(content, bytes):
        (npy / "4.png.npy").write_bytes(content)
    else:
        np.save(npy / "4.png", content)

    with pytest.raises(InputError, match=fragment):
        load(dataset, PreprocessedDir(npy, dataset, RECIPE, OpenCV, ready=True))


def test_a_folder_is_filled_used_and_renewed(tmp_path: Path, dataset: DataSet) -> None:
    folder = tmp_path / "filled"
    plain = load(dataset, None)
    load(dataset, PreprocessedDir(folder, dataset, RECIPE, OpenCV, ready=False))
    second = load(dataset, PreprocessedDir(folder, dataset, RECIPE, OpenCV, ready=False))
    ready = load(dataset, PreprocessedDir(folder, dataset, RECIPE, OpenCV, ready=True))
    for library in (second, ready):
        assert library.notes()[0].startswith("20 of 20")
        np.testing.assert_array_equal(tensors(library), tensors(plain))
    assert (second.rules_broken(), len(ready.rules_broken())) == ([], 1), "ready ones are not asked who made them"

    draw(dataset.root / dataset.files[3], 255)
    third = load(dataset, PreprocessedDir(folder, dataset, RECIPE, OpenCV, ready=False))
    assert third.notes()[0].startswith("19 of 20")
    np.testing.assert_array_equal(tensors(third), tensors(load(dataset, None)))
    assert not list(folder.glob(".*"))

    shutil.copy(folder / "4.png.npy", folder / "5.png.npy")
    exchanged = load(dataset, PreprocessedDir(folder, dataset, RECIPE, OpenCV, ready=False))
    assert exchanged.rules_broken() == [f"tensors made elsewhere: 1, in the preprocessed folder {folder}"]


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path, npy: Path, dataset: DataSet) -> None:
    folder = tmp_path / "filled"
    load(dataset, PreprocessedDir(folder, dataset, RECIPE, OpenCV, ready=False))
    other = replace(RECIPE, name="other", mean=(0.0, 0.0, 0.0))

    with pytest.raises(InputError, match="was filled for small, expected the recipe other"):
        PreprocessedDir(folder, dataset, other, OpenCV, ready=True)
    with pytest.raises(InputError, match=f"was filled for another recipe or version .*{RECIPE_FILE}"):
        PreprocessedDir(folder, dataset, other, OpenCV, ready=False)
    with pytest.raises(InputError, match="tensors of unknown origin; add --use_preprocessed_dataset"):
        PreprocessedDir(npy, dataset, RECIPE, OpenCV, ready=False)


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ({"cache": True}, []),
        ({"preprocessed_dir": "x", "use_preprocessed_dataset": True, "cache_dir": "y"}, []),
        ({"cache_dir": "x"}, ["--cache_dir has no effect without --cache 1"]),
        ({"cache_dir": "x", "use_preprocessed_dataset": True}, []),
        ({"cache": True, "preprocessed_dir": "x"}, ["--cache 1 has no effect with preprocessed tensors"]),
        ({"cache": True, "boundary": "jpeg"}, ["--cache 1 has no effect at the boundary jpeg"]),
        (
            {"preprocessed_dir": "x", "use_preprocessed_dataset": True, "boundary": "pixels"},
            ["--preprocessed_dir has no effect at the boundary pixels", "--use_preprocessed_dataset has no effect"],
        ),
    ],
)
def test_flags_without_effect_are_said_to_have_none(settings: dict[str, Any], fragments: list[str]) -> None:
    notes = apply_flags(SimpleNamespace(), RunConfig(**settings), None, "resnet50")

    assert len(notes) == len(fragments)
    for note, fragment in zip(notes, fragments, strict=True):
        assert fragment in note


def test_what_does_not_change_the_figures_does_not_change_the_directory() -> None:
    plain = RunConfig().digest()

    assert RunConfig(cache=True, cache_dir=Path("x")).digest() == plain
    assert RunConfig(preprocessed_dir=Path("x"), use_preprocessed_dataset=True).digest() != plain
