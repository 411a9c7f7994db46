"""What a result says of the machine it was made on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from sut import outcome
from sut.outcome import versions


@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "nncf"])
def test_the_runtimes_and_the_quantiser_are_told_with_their_versions(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def only(name: str) -> str:
        if name != package:
            raise PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(outcome, "version", only)

    found = versions()

    assert found.pop(package) == "1.2.3"
    assert found.pop("python")
    assert set(found.values()) == {None}, "what is not installed has no version"
