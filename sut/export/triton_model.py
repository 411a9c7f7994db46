"""A Triton model that hands its requests to a process of its own, which runs the pipeline.

``sut export triton`` copies this file into the model's folder, beside what it wrote of the process. The server's Python
may be any from 3.8, with any NumPy that the server takes: nothing of the project is imported here.
"""

from __future__ import annotations

import json
import os
import subprocess
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_ORDERS = Path(__file__).resolve().with_name("pipeline.json")
LOAD_S = 600.0
"""An engine may be built meanwhile."""
BATCH_S = 60.0
_END_S = 10.0
_READY = b"ready"


class TritonPythonModel:
    """What Triton calls, for each instance of the model from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the process, and wait until it has loaded the model."""
        orders = json.loads(_ORDERS.read_text(encoding="utf-8"))
        self._input = json.loads(args["model_config"])["input"][0]["name"]
        self._pipe, theirs = Pipe()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with theirs:
            self.process = subprocess.Popen(
                [*orders["command"], str(theirs.fileno()), str(_ORDERS)],
                cwd=orders["folder"],
                env={**inherited, "PYTHONPATH": orders["checkout"]},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which ends this in its turn
            )
        try:
            told = self._received(LOAD_S)
        except pb_utils.TritonModelException as error:
            raise pb_utils.TritonModelException(self._ended(error)) from None
        if told != _READY:
            self.finalize()
            raise pb_utils.TritonModelException(told.decode())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests, or say for each why not."""
        try:
            self._send([pb_utils.get_input_tensor_by_name(each, self._input).as_numpy() for each in requests])
            return [self._response(told) for told in json.loads(self._received(BATCH_S))]
        except (OSError, pb_utils.TritonModelException) as error:
            told = f"{self._ended(error)}; load the model again, or start the server again"
            return [_failed(told, pb_utils.TritonError.UNAVAILABLE) for _ in requests]

    def finalize(self) -> None:
        """End the process, which does by itself once nobody can ask it any more."""
        self._pipe.close()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ended(self, error: Exception) -> str:
        """End the process, whose answer to come would be taken for the next batch's, and say why."""
        self.process.kill()
        return f"the pipeline's process has ended, exit code {self.process.wait()} ({error})"

    def _send(self, inputs: list[Any]) -> None:
        files = [[*each.flat] if each.dtype == np.object_ else None for each in inputs]
        told = [
            [each.dtype.name, each.shape, None if own is None else [*map(len, own)]]
            for each, own in zip(inputs, files)  # noqa: B905 - strict= is of Python 3.10
        ]
        self._pipe.send_bytes(json.dumps(told).encode())
        for each, own in zip(inputs, files):  # noqa: B905
            self._pipe.send_bytes(each.tobytes() if own is None else b"".join(own))

    def _response(self, told: Any) -> Any:
        if isinstance(told, dict):
            error = pb_utils.TritonError
            return _failed(told["reason"], error.INVALID_ARG if told["of_request"] else error.INTERNAL)
        arrays = [np.frombuffer(self._received(BATCH_S), dtype).reshape(shape) for _, dtype, shape in told]
        names = [name for name, _, _ in told]
        return pb_utils.InferenceResponse([*map(pb_utils.Tensor, names, arrays)])

    def _received(self, within_s: float) -> bytes:
        """The next frame. Raises ``TritonModelException`` where there is none."""
        try:
            if self._pipe.poll(within_s):
                return self._pipe.recv_bytes()
        except EOFError:
            raise pb_utils.TritonModelException("its socket is closed") from None
        raise pb_utils.TritonModelException(f"no answer within {within_s:g} s")


def _failed(reason: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, code))
