"""Plants one fault in ONNX Runtime, as $REFERENCE_FAULT says; copied as ``sitecustomize.py`` to where Python finds it.

It strikes once LoadGen has started. Only the standard library is used: this runs in every Python process, before
anything else.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import time
from math import nan
from typing import Any, NoReturn

STRIKES = {
    "raises": lambda calls, outputs: _raise(RuntimeError("planted")),
    "raises sometimes": lambda calls, outputs: _raise(RuntimeError("planted")) if calls % 10 == 0 else outputs,
    "leaves": lambda calls, outputs: _raise(SystemExit(0)),
    "hangs": lambda calls, outputs: time.sleep(3600),
    "nothing": lambda calls, outputs: [output[:0] for output in outputs],
    "row short": lambda calls, outputs: [output[:-1] for output in outputs],
    "no class": lambda calls, outputs: [output * 0 + (5000 if output.dtype.kind == "i" else nan) for output in outputs],
}


def _raise(error: BaseException) -> NoReturn:
    raise error


class Plant(importlib.abc.MetaPathFinder):
    """Wraps ``InferenceSession.run`` right after ONNX Runtime was imported."""

    def __init__(self, strike: Any) -> None:
        self.strike = strike
        self.calls = 0
        self.started = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "onnxruntime":
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            module.InferenceSession.run = self.wrapped(module.InferenceSession.run)

        spec.loader.exec_module = exec_module
        return spec

    def wrapped(self, run: Any) -> Any:
        def struck(session: Any, *args: Any, **kwargs: Any) -> Any:
            if self.calls == 0:
                self.watch_start()
            self.calls += 1
            outputs = run(session, *args, **kwargs)
            return self.strike(self.calls, outputs) if self.started else outputs

        return struck

    def watch_start(self) -> None:
        """Both sides import LoadGen before they load a model, and look this function up when they call it."""
        loadgen: Any = sys.modules.get("mlperf_loadgen")
        if loadgen is None:
            return
        start = loadgen.StartTestWithLogSettings

        def started(*args: Any, **kwargs: Any) -> Any:
            self.started = True
            return start(*args, **kwargs)

        loadgen.StartTestWithLogSettings = started


if strike := STRIKES.get(os.environ.get("REFERENCE_FAULT", "")):
    sys.meta_path.insert(0, Plant(strike))
