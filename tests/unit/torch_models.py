"""The small classifier as PyTorch has it, in each kind of file."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch

from tests.unit.small_models import CLASSES, SIZE, write_classifier

MAKER = "tests.unit.torch_models:Classifier"


class Classifier(torch.nn.Module):
    """As ``write_classifier`` writes it, with a dropout that only training shows; ``in_place`` spoils its input."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second = torch.nn.Conv2d(8, 16, 3, padding=1)
        self.dropout = torch.nn.Dropout(0.5)
        self.dense = torch.nn.Linear(16, CLASSES)
        self.in_place = in_place

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.in_place:
            images.relu_()
        x = torch.relu(self.first(images))
        x = torch.relu(self.depthwise(x))
        x = torch.relu(self.second(x))
        return self.dense(self.dropout(x.mean((2, 3))))


def classifier(folder: Path) -> Classifier:
    """With the weights of ``write_classifier``, whose file is ``small.onnx`` then."""
    made = Classifier()
    weights = onnx.load(write_classifier(folder / "small.onnx")).graph.initializer
    made.load_state_dict({each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in weights})
    return made


def write_torch(path: Path, *, batch: int | None = None, training: bool = False, in_place: bool = False) -> Path:
    """The file that its name's ending says; ``batch`` fixes that of an exported graph."""
    module = classifier(path.parent).train(training)
    module.in_place = in_place
    given = torch.zeros(batch or 2, 3, SIZE, SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        match path.suffix:
            case ".pt2":
                axes = None if batch else ({0: torch.export.Dim("n", min=1)},)
                torch.export.save(torch.export.export(module, (given,), dynamic_shapes=axes), path)
            case ".pt" | ".torchscript":
                torch.jit.save(torch.jit.script(module), path)
            case ".pth":
                torch.save(module.state_dict(), path)
    return path
