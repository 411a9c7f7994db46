"""What is said of the second of two models."""

from dataclasses import replace

import pytest

from sut.results.identified import Carriage, Identified

NOTHING = Carriage(0, 0, None, None, None, None, None, 0, 0, None)
CARRIED = Carriage(1289, 194_030_592, 14.1, 32, 116_010_005, 338_302_385, 435_471_295, 0, 1497, 1497)
FUSED = Identified("lite0", "c0", "trained", "openvino", "1", {}, 12, "none", "none", None, None, None, None)
THROUGH = replace(FUSED, channel="redis", durability="AOF always", workers=1, crops=CARRIED, answers=CARRIED)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (FUSED, "identified by lite0 on openvino, in the lane: 12 crops"),
        (replace(THROUGH, crops=NOTHING, identified=0), "identified by lite0 on openvino, through redis: 0 crops"),
        (
            THROUGH,
            "identified by lite0 on openvino through redis (durability: AOF always): 1,289 crops, 150.5 kB each, "
            "waited 116 ms p50, 338 ms p99",
        ),
    ],
)
def test_it_is_one_line(told: Identified, words: str) -> None:
    assert told.line() == words
