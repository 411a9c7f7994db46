"""Whether a submission's tree is whole and sound."""

from __future__ import annotations

from pathlib import Path

from sut.mlperf.finding import Finding

REHEARSAL = "REHEARSAL, not a submission"
"""What a tree that was made to rehearse says of itself, in every README.md and in ``sw_notes``."""


def judge_tree(root: Path) -> list[Finding]:
    """What is wrong or odd with the tree below ``root``, the folder that holds ``closed`` or ``open``.

    Findings name files from ``root``. Raises ``ValueError`` where there is no tree.
    """
    raise NotImplementedError
