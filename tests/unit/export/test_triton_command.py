"""What ``sut export triton`` prints: the lines that start the server and drive it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tests.children import run_python
from tests.unit.quantised_models import write_quantised
from tests.unit.small_models import RECIPE_FILE


def test_what_the_model_is_known_by_is_in_the_line_that_drives_it(tmp_path: Path) -> None:
    recipe = tmp_path / "a recipe.yaml"
    recipe.write_text(RECIPE_FILE)
    model = write_quantised(tmp_path / "small.onnx", "unsigned")
    known = ("--model-name", "mine", "--recipe", recipe, "--precision", "int8")

    child = run_python(
        *("-m", "sut", "export", "triton", "--json", "--output", "models"),
        *("--boundary", "jpeg", "--model", model, *known),
        cwd=tmp_path,
    )

    assert child.code == 0, child.err
    [row] = json.loads(child.out)["rows"]
    assert shlex.split(row["drive"]) == [
        *("./run_local.sh", "kserve", str(model), "--device", "grpc://127.0.0.1:8001", "--boundary", "jpeg"),
        *("--preprocess", "server", *map(str, known)),
    ]
    assert shlex.split(row["start"])[1:3] == ["--model-repository", str(tmp_path / "models")]


def test_a_device_that_is_not_there_is_something_missing(tmp_path: Path) -> None:
    asked = ("--backend", "kserve", "--device", "grpc://127.0.0.1:1")

    child = run_python("-m", "sut", "export", "triton", "--output", "models", *asked, cwd=tmp_path)

    assert child.code == 2
    assert child.error.startswith("no server answers: grpc://127.0.0.1:1")
