"""The judge of submissions: good trees have no finding, and what breaks one rule has that one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sut.mlperf.tree.judge import judge_tree
from tests.unit.mlperf.tree import trees
from tests.unit.mlperf.tree.trees import Folder


@pytest.mark.parametrize("make", [trees.closed_edge, trees.datacenter_edge, trees.open_division])
def test_a_whole_submission_has_no_finding(tmp_path: Path, make: Callable[[Path], Folder]) -> None:
    make(tmp_path)

    assert judge_tree(tmp_path) == []


def test_where_there_is_no_tree_it_says_so(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "holds neither closed nor open"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ValueError, match=said):
            judge_tree(path)
