"""What a breakdown is over, and what it asks: names and bad input, without anything being run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sut.config import make_config
from sut.errors import InputError
from sut.studies.breakdown.cells import drives, plan
from sut.studies.breakdown.pictures import ladder
from sut.studies.driving.driven import Drive, Driven, Relative
from sut.studies.driving.loads import Alone, Closed, Poisson


def planned(words: str | None, preprocessors: str | None = "simulated", **settings: Any) -> list[str]:
    config = make_config({"backend": "simulated", **settings})
    return [cell.label for cell in plan(config, words, preprocessors, lambda text: None).cells]


def test_every_preprocessor_is_over_every_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    words = f"{tmp_path / 'one'},{tmp_path / 'two'}"

    assert planned(words, "opencv, simulated") == ["opencv, one", "simulated, one", "opencv, two", "simulated, two"]


def test_ones_own_data_set_is_taken_where_there_is_one_and_what_computes_nothing_is_left_out(tmp_path: Path) -> None:
    found = planned(None, None, dataset="folder", dataset_path=tmp_path)

    assert "opencv, own" in found and not any("simulated" in label or "null" in label for label in found)


@pytest.mark.parametrize(
    ("words", "settings", "expected"),
    [
        ("huge", {}, "--pictures huge: no such folder; expected small, medium, large, mix, or a folder of pictures"),
        ("", {}, "--pictures : no such folder"),
        ("small", {"dataset": "demo"}, "--pictures and --dataset-path both say which pictures are taken"),
        (None, {"dataset": "demo", "boundary": "tensor"}, "sut breakdown sets boundary itself, got tensor"),
        (None, {"dataset": "demo", "scenario": "Offline"}, "sut breakdown sets scenario itself, got Offline"),
        (None, {"dataset": "demo", "qps": 5}, "sut breakdown sets qps itself, got 5.0; leave it out"),
        (None, {"dataset": "demo", "mode": "accuracy"}, "takes latencies apart, got mode: accuracy"),
        (None, {"dataset": "demo", "samples_per_query": 4}, "--samples-per-query has no effect"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_in_one_line(
    words: str | None, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        planned(words, **settings)

    assert str(caught.value).startswith(expected) or expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a/x", "b/x"):
        (tmp_path / name).mkdir(parents=True)

    with pytest.raises(InputError, match="two folders of one name"):
        planned(f"{tmp_path / 'a/x'},{tmp_path / 'b/x'}")


def test_zero_load_and_the_fifth_go_by_the_batch_1_rate_and_the_load_by_the_highest() -> None:
    asked = drives(make_config({"lanes": 2, "max_batchsize": 4, "time_s": 1}), 3)
    done = [_did(number, rate) for number, rate in enumerate((10.0, 50.0))]
    loads = {name: each.after(done).load for name, each in asked.items()}

    assert loads == {
        "batch 1": Closed(1),
        "full": Closed(16),
        "zero load": Alone(2.0, seed=3),
        "at 20 %": Poisson(2.0, seed=3),
        "loaded": Poisson(40.0, seed=3),
    }


@pytest.mark.parametrize(("rate", "seconds"), [(1000.0, 1.0), (10.0, 2.0), (0.5, 4.0)])
def test_slow_loads_are_asked_longer_but_not_for_ever(rate: float, seconds: float) -> None:
    asked = Drive(Poisson(0.5), 1.0, relative=Relative(0, 10, 4.0)).after([_did(0, rate)])

    assert (asked.load, asked.seconds) == (Poisson(0.5 * rate), seconds)


def _did(number: int, rate: float) -> Driven:
    return Driven(number, Closed(1), 1.0, 1, 0, None, rate, {}, {}, 0.0, None, Path())


def test_the_sizes_in_between_are_equal_steps_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sut.studies.breakdown.pictures._LADDER", 3)
    monkeypatch.setattr("sut.studies.breakdown.pictures._LADDER_COUNT", 1)
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path))
    said: list[str] = []
    first, again = ladder(said.append), ladder(said.append)

    assert first == again and len(said) == 1
    pixels = [each for each, _ in first]
    assert pixels[0] == 60 * 70 and pixels[-1] == pytest.approx(3564 * 2880, rel=0.001)
    assert pixels[1] ** 2 == pytest.approx(pixels[0] * pixels[2], rel=0.02)
