"""Plants one fault in a process, as $SUT_FAULT says: copied as ``sitecustomize.py`` to where Python finds it.

The function it is planted in is wrapped when its module is imported, before anybody takes a name out of it. When it
strikes, it first leaves a line of JSON in the file ``struck``: where, with what, and whether LoadGen had started. Only
the standard library is used: this runs in every Python process of the run, before anything else.
"""

import functools
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import sys
import threading
from pathlib import Path

FOLDER = Path(os.environ.get("FAULTS_FOLDER", "."))
STARTED = FOLDER / "started"


class Plant:
    """The fault, in the process that it is for."""

    def __init__(self, fault):
        self.fault = fault
        self.calls = 0
        self.lock = threading.Lock()
        self.has_started = False

    def started(self):
        self.has_started = self.has_started or STARTED.exists()
        return self.has_started

    def due(self):
        """Whether this call is the one. Counted from LoadGen's start where the fault is one in the run."""
        if self.fault["when"] == "run" and not self.started():
            return False
        with self.lock:
            self.calls += 1
            return self.calls == self.fault["call"]

    def tell(self, code, message):
        place = {"file": code.co_filename if code else "native code", "line": code.co_firstlineno if code else 0}
        line = json.dumps({**place, "message": message, "in_run": STARTED.exists()}) + "\n"
        with (FOLDER / "struck").open("a") as file:
            file.write(line)

    def wrap(self, original):
        """The function with the fault in it."""
        fault, code = self.fault, getattr(original, "__code__", None)

        @functools.wraps(original)
        def struck(*args, **kwargs):
            due = self.due()
            scope = {"os": os, "sys": sys, "args": args, "kwargs": kwargs, "FOLDER": FOLDER}
            scope |= {"find": find, "memory_file": memory_file}
            if due:
                self.tell(code, fault["do"] or fault["after"])
                exec(compile(PRELUDE + fault["do"], "planted", "exec"), scope)
            result = original(*scope["args"], **scope["kwargs"])
            if due and fault["after"]:
                scope["result"] = result
                exec(compile(PRELUDE + fault["after"], "planted", "exec"), scope)
                result = scope["result"]
            return result

        return struck


PRELUDE = "import ctypes, gc, json, resource, shutil, signal, subprocess, threading, time\nfrom pathlib import Path\n"


def find(name):
    """Some object of a class of that name, wherever it is held."""
    import gc

    return next(each for each in gc.get_objects() if type(each).__name__ == name)


def memory_file():
    """Path of the memory that both processes share."""
    return next(path for path in Path("/proc/self/fd").iterdir() if "memfd:" in str(path.readlink()))


def patch(module, path, wrap):
    """Put ``wrap`` around ``module``'s function or method of that dotted name."""
    *outer, name = path.split(".")
    owner = functools.reduce(getattr, outer, module)
    found = inspect.getattr_static(owner, name)
    if isinstance(found, (classmethod, staticmethod)):
        setattr(owner, name, type(found)(wrap(found.__func__)))
    elif isinstance(found, property):
        setattr(owner, name, property(wrap(found.fget)))
    else:
        setattr(owner, name, wrap(found))


class Patcher(importlib.abc.MetaPathFinder):
    """Patches modules right after they were made."""

    def __init__(self, patches):
        self.patches = patches

    def find_spec(self, name, path=None, target=None):
        if name not in self.patches:
            return None
        patches = self.patches.pop(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        loaded = spec.loader.exec_module

        def exec_module(module):
            loaded(module)
            for attribute, wrap in patches:
                patch(module, attribute, wrap)

        spec.loader.exec_module = exec_module
        return spec


def mark_start(original):
    @functools.wraps(original)
    def started(*args, **kwargs):
        STARTED.touch()
        return original(*args, **kwargs)

    return started


def main():
    text = os.environ.get("SUT_FAULT")
    modules = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if "-m" in sys.orig_argv else []
    sides = {"sut": "parent", "sut.run.worker": "child", "sut.pipeline.preprocess_worker": "worker"}
    side = sides.get(modules[0] if modules else "")
    if not text or side is None:
        return
    fault = json.loads(text)
    patches = {}
    if side == "child":
        patches["sut.mlperf.loadgen"] = [("run", mark_start)]
    if fault["side"] == side and fault["at"]:
        module, _, attribute = fault["at"].partition(":")
        patches.setdefault(module, []).append((attribute, Plant(fault).wrap))
    sys.meta_path.insert(0, Patcher(patches))


main()
