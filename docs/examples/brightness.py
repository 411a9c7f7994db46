"""How bright a picture is, as a task: what it asks, a model that answers it, and pictures whose answers are known."""

import numpy as np

from backends.base import TensorSpec
from preprocess.base import Recipe, unmarked
from sut.datasets.base import DataSet
from sut.files import cached
from sut.models.base import ModelSpec
from sut.models.onnx_graph import OnnxGraph
from sut.tasks.base import Score, Task

SIZE, NEAR = 32, 0.02
RECIPE = Recipe(name="brightness", size=SIZE, fit="stretch", interpolation="linear", std=(255.0,) * 3)


class Brightness(Task):
    name = "brightness"
    layout = "greys"

    def __init__(self, output):
        self.output = output

    @classmethod
    def of(cls, spec, outputs):
        fitting = [each for each in outputs if each.shape[1:] == (1,)]
        if len(fitting) != 1:
            raise ValueError(f"{len(fitting)} outputs of shape [n, 1], expected 1")
        return cls(fitting[0])

    def decode(self, outputs, indices, geometries, rows, mark=unmarked):
        values = np.asarray(outputs[self.output.name])
        if values.shape != (rows, 1) or not np.isfinite(values).all():
            raise ValueError(f"got {values.shape}, expected finite values of shape ({rows}, 1)")
        return values[: len(indices), 0].astype("<f4")

    @classmethod
    def score(cls, answers, truth, whole=True):
        if whole and len(answers) != len(truth):
            raise ValueError(f"{len(answers)} answers for {len(truth)} pictures")
        near = [abs(np.frombuffer(answer, "<f4")[0] - truth[index]) < NEAR for index, answer in answers.items()]
        share = sum(near) / len(near)
        return Score("near", share, f"near={share:.3%}", len(near))


def write_model(path):
    graph = OnnxGraph("brightness")
    graph.node("ReduceMean", ["images"], "brightness", axes=[1, 2, 3], keepdims=0)
    graph.node("Unsqueeze", ["brightness", graph.weight("axis", np.array([1]))], "column")
    graph.save(
        path, [TensorSpec("images", "float32", (None, 3, SIZE, SIZE))], [TensorSpec("column", "float32", (None, 1))]
    )


MODEL = ModelSpec(
    name="brightness",
    recipe=RECIPE,
    build=lambda weights, say: cached("brightness.onnx", "1", write_model, say),
    task="brightness",
    loadgen_model="brightness",
)


def open_greys(path, list_file, count):
    """The PNG pictures of a folder, which are called after their level: 000.png to 255.png."""
    files = tuple(sorted(each.name for each in path.glob("*.png")))[:count]
    return DataSet("greys", path, files, [int(name[:3]) / 255 for name in files])
