"""What ``./run_tests.sh --core`` skips, and says so: all that needs packages which it does not install."""

from __future__ import annotations

import os

import pytest

CORE = "SUT_TESTS_CORE" in os.environ


def needs(extra: str) -> pytest.MarkDecorator:
    """A mark for a test, or a module's ``pytestmark``: without ``--core`` the test runs, and fails where they lack."""
    return pytest.mark.skipif(CORE, reason=f"--core is without {extra}")


def module_needs(extra: str) -> None:
    """The same for a module that cannot be imported without: above the imports in question."""
    if CORE:
        pytest.skip(f"--core is without {extra}", allow_module_level=True)
