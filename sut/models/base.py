"""What the system knows of a model: its recipe, its classes, MLPerf's rules for it, and where its file comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from preprocess.base import Recipe
from sut.text import Say

Weights = Literal["trained", "random"]
"""What a user can ask for."""
Made = Literal["trained", "random", "planted"]
"""What a file's weights are that is made here; ``planted`` ones were written down, so that answers are known."""
Build = Callable[[Weights, Say], Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One known model.

    ``build(weights, say)`` returns the path of its ONNX file, made and cached on first use, or raises ``InputError``
    (the file must be brought by the user) or ``SetupError`` (a package is missing).
    """

    name: str
    recipe: Recipe
    build: Build
    other_builds: Mapping[str, Build] = field(default_factory=dict)
    """The same for backends that read no ONNX files, by how the names of those end that they do read."""
    adapt: Callable[[Path, Say], Path] | None = None
    """What makes the file that runs of an .onnx file that the user gives, where that is not run itself."""
    makes: tuple[Made, ...] = ()
    """The weights that ``build`` itself puts into the file, as opposed to those that the user must bring."""
    dataset: str = "demo"
    """The data set that it is run on where none is told, nor a folder."""
    task: str = "classification"
    task_options: Mapping[str, Any] = field(default_factory=dict)
    """What ``Task.options`` of that task may have set, such as which kind of outputs the file has."""
    classes: int = 1000
    """Width of the model's score output."""
    label_offset: int = 0
    """What to add to the index of the best score to get an ImageNet label (-1 where class 0 is "background")."""
    loadgen_model: str = "resnet50"
    """The name whose rules in mlperf.conf apply."""
    exports_differ: bool = False
    """Whether whoever has the model has exported a file of his own, with a size and a dtype that the file decides."""

    def prepared_as(self, recipe: Recipe) -> ModelSpec:
        """Itself, as a file is prepared for whose ``recipe`` this is, as far as a file may decide anything."""
        size, dtype = (recipe.size, recipe.dtype) if self.exports_differ else (self.recipe.size, self.recipe.dtype)
        return replace(self, recipe=replace(self.recipe, layout=recipe.layout, size=size, dtype=dtype))

    @property
    def labels_end(self) -> int:
        """One more than the highest label that the model can answer with."""
        return self.classes + self.label_offset
