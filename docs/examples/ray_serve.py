"""The parts of a run behind Ray Serve: each replica preprocesses a JPEG file and says which class it is of.

Ray Serve needs more than this project's extra ``ray``: pip install "ray[serve]". Then, from the checkout:

    PYTHONPATH=. .venv/bin/python docs/examples/ray_serve.py &
    curl --data-binary @sut/datasets/demo_photos/palace.jpg http://127.0.0.1:8000/
"""

import time
from typing import Any

import numpy as np

from sut import RunConfig
from sut.pipeline.assembly import assemble


class Labels:
    """One replica: a model, loaded once, and a preprocessor."""

    def __init__(self) -> None:
        parts = assemble(RunConfig(model="efficientnet-lite0", boundary="jpeg", threads=1))
        backend = parts.load_backend()
        self._runner, self._task = backend.runner(), parts.task_for(backend)
        self._preprocessor = parts.preprocessor_for(parts.spec.recipe)

    def label(self, jpeg: bytes) -> int:
        """The number of the class; raises ``BadPicture`` for what is no picture."""
        slot = self._runner.slot(1)
        geometries = self._preprocessor.run([jpeg], slot, lambda stage: None)
        answers = self._task.decode(self._runner.infer(slot), [0], geometries, 1)
        return int(np.asarray(answers)[0])

    async def __call__(self, request: Any) -> dict[str, int]:
        """Answer one HTTP request, whose body is the file."""
        return {"label": self.label(await request.body())}


if __name__ == "__main__":
    from ray import serve

    serve.run(serve.deployment(Labels, num_replicas=2).bind())
    while True:
        time.sleep(60)
