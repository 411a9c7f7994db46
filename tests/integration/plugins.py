"""A plug-in package of faults, copied by ``support.Sut`` to where the runs under test find it by its entry points.

The data sets of the tests hold white pictures behind the first eight, which warm-up and calibration never get to (they
take the first ones, up to a batch of eight). So a backend knows by a white picture that it is inside the run.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from backends.base import Attestation, Backend, ModelFile, Runner, Slot, TensorSpec
from plugins.errors import DeviceNotFound
from sut.models.registry import MODELS
from sut.tasks.classification import Classification
from sut.tasks.top1 import Top1

FOLDER = Path(os.environ.get("FAULTS_FOLDER", "."))
"""Where a fault leaves the file ``reached``, and looks for the file ``go``."""

Scores = NDArray[np.float32]


def reach() -> None:
    (FOLDER / "reached").touch()


def wait_for_ever() -> None:
    reach()
    while True:
        time.sleep(1)


def wait_for_go() -> None:
    reach()
    while not (FOLDER / "go").exists():
        time.sleep(0.01)


class Plain(Backend):
    """Takes real pictures and scores class 0 best, after a millisecond that keeps the speed of a run steady."""

    name: ClassVar[str] = "plain"
    needs_model = False
    inputs = (TensorSpec("images", "float32", (None, 3, 224, 224), "NCHW"),)
    outputs = (TensorSpec("scores", "float32", (None, 1000), "NC"),)
    device: ClassVar[str] = "cpu"
    precision: ClassVar[str] = "fp32"

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        cls.while_loading()
        return cls()

    @classmethod
    def version(cls) -> str:
        return "1.0"

    def runner(self, place: str = "host") -> PlainRunner:
        return PlainRunner(self)

    def attest(self) -> Attestation:
        return Attestation(self.device, "a test", "none", self.precision)

    @classmethod
    def while_loading(cls) -> None:
        """What goes wrong before anything is inferred."""

    def in_warm_up(self) -> None:
        """What goes wrong at a batch without a white picture."""

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        """What goes wrong at a batch with a white picture: the outputs."""
        return {"scores": scores}


class PlainRunner(Runner):
    def __init__(self, backend: Plain) -> None:
        self._backend = backend
        self._pictures = np.zeros((0, 3, 224, 224), np.float32)

    def slot(self, n: int) -> Slot:
        if n > len(self._pictures):
            self._pictures = np.zeros((n, 3, 224, 224), np.float32)
        return Slot(n, {"images": self._pictures[:n]})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        time.sleep(0.001)
        scores = np.zeros((slot.n, 1000), np.float32)
        scores[:, 0] = 1
        if (slot.buffers["images"][:, 0, 0, 0] > 0.9).any():
            return self._backend.in_run(scores)
        self._backend.in_warm_up()
        return {"scores": scores}


class Raises(Plain):
    """Raises at the third batch with a white picture, in three lines; all others it answers."""

    name = "raises"
    batches = 0

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        self.batches += 1
        if self.batches == 3:
            raise RuntimeError("out of luck\nat the third\n white picture")
        return {"scores": scores}


class AlwaysRaises(Plain):
    name = "always-raises"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        raise RuntimeError("never in luck")


class TooFewRows(Plain):
    name = "too-few-rows"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        return {"scores": scores[1:]}


class NotFinite(Plain):
    name = "not-finite"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        scores[-1, 7] = np.nan
        return {"scores": scores}


class NoOutput(Plain):
    name = "no-output"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        return {}


class WrongLabel(Plain):
    name = "wrong-label"
    outputs = (TensorSpec("label", "int64", (None,), "N"),)

    def runner(self, place: str = "host") -> PlainRunner:
        return LabelRunner(self)


class LabelRunner(PlainRunner):
    def infer(self, slot: Slot) -> Mapping[str, Any]:
        white = slot.buffers["images"][:, 0, 0, 0] > 0.9
        return {"label": np.where(white, 1000, 0)}


class SysExits(Plain):
    name = "sys-exits"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        sys.exit(0)


class Interrupts(Plain):
    """A runtime that turns something into a KeyboardInterrupt of its own."""

    name = "interrupts"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        raise KeyboardInterrupt


class Hangs(Plain):
    name = "hangs"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        wait_for_ever()
        raise AssertionError


class HangsWithTheGil(Plain):
    """Hangs in foreign code that never lets another thread of the process run."""

    name = "hangs-with-the-gil"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        reach()
        ctypes.PyDLL(None).pause()
        raise AssertionError


class Exits0(Plain):
    name = "exits-0"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        os._exit(0)


class Exits7(Plain):
    name = "exits-7"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        os._exit(7)


class Killed(Plain):
    """Is killed, as by the kernel for want of memory; not when the file ``go`` is there."""

    name = "killed"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        if not (FOLDER / "go").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return {"scores": scores}


class Segfaults(Plain):
    name = "segfaults"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)
        raise AssertionError


class Aborts(Plain):
    name = "aborts"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()


class ForksAndDies(Plain):
    """Leaves a fork of itself behind, which holds everything open that the process had."""

    name = "forks-and-dies"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        if os.fork() == 0:
            wait_for_ever()
        os._exit(7)


class StartsHelper(Plain):
    """Leaves a process behind that nobody has told to end; else it works."""

    name = "starts-helper"

    @classmethod
    def while_loading(cls) -> None:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


class Forks(Plain):
    """Leaves a fork of itself behind; else it works."""

    name = "forks"

    @classmethod
    def while_loading(cls) -> None:
        if os.fork() == 0:
            wait_for_ever()


class Daemonizes(Plain):
    """Leaves a process behind that has another parent and another session."""

    name = "daemonizes"

    @classmethod
    def while_loading(cls) -> None:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                wait_for_ever()
            os._exit(0)
        os.wait()


class Chatters(Plain):
    """Prints for ever, to Python's standard output and past it."""

    name = "chatters"

    @classmethod
    def while_loading(cls) -> None:
        print("the first words", flush=True)
        threading.Thread(target=cls.chatter, daemon=True).start()

    @staticmethod
    def chatter() -> None:
        while True:
            os.write(2, b"babble\n" * 2**13)
            print("more babble")
            time.sleep(0.001)


class Garbles(Plain):
    """Writes what GARBAGE says where its process tells how far it is."""

    name = "garbles"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        os.write(int(sys.argv[-1]), os.environ["GARBAGE"].encode("utf-8", "surrogateescape"))
        time.sleep(0.1)
        return {"scores": scores}


class RemovesOutput(Plain):
    """Removes the output folder during the run."""

    name = "removes-output"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        shutil.rmtree(FOLDER.parent / "cwd" / "output", ignore_errors=True)
        return {"scores": scores}


class SetsItsClock(Plain):
    """Sets the system clock back five seconds, for Python in its own process."""

    name = "sets-its-clock"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        if not (FOLDER / "reached").exists():
            reach()
            right = time.time_ns
            time.time_ns = lambda: right() - 5_000_000_000
        return {"scores": scores}


class DiskFull(Plain):
    """The disk is full from the first white picture on, for the run's process."""

    name = "disk-full"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        return {"scores": scores}


class ParentsDiskFull(Plain):
    """The disk is full from the first white picture on, for the process that writes the result."""

    name = "parents-disk-full"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (0, 0))
        return {"scores": scores}


class LoadRaises(Plain):
    name = "load-raises"

    @classmethod
    def while_loading(cls) -> None:
        raise RuntimeError("no luck\nin loading")


class LoadRefuses(Plain):
    name = "load-refuses"

    @classmethod
    def while_loading(cls) -> None:
        raise ValueError("cannot run a model of this kind; convert it")


class LoadMissesModule(Plain):
    name = "load-misses-module"

    @classmethod
    def while_loading(cls) -> None:
        import no_such_runtime  # noqa: F401


class LoadMissesDevice(Plain):
    name = "load-misses-device"

    @classmethod
    def while_loading(cls) -> None:
        raise DeviceNotFound("no such accelerator here; it has cpu")


class LoadExits(Plain):
    name = "load-exits"

    @classmethod
    def while_loading(cls) -> None:
        os._exit(0)


class LoadHangs(Plain):
    name = "load-hangs"

    @classmethod
    def while_loading(cls) -> None:
        wait_for_ever()


class WarmUpRaises(Plain):
    name = "warm-up-raises"

    def in_warm_up(self) -> None:
        raise RuntimeError("cold")


class WarmUpHangs(Plain):
    name = "warm-up-hangs"

    def in_warm_up(self) -> None:
        wait_for_ever()


class OneOfTwoDies(Plain):
    """Has two devices, of which ``right`` does nothing any more from the first white picture on."""

    name = "one-of-two-dies"

    def __init__(self, on: str) -> None:
        self._on, self._dead = on, False

    @classmethod
    def devices(cls) -> list[str]:
        return ["left", "right"]

    @classmethod
    def load(cls, model: ModelFile, device: str, lanes: int, threads: int, options: Mapping[str, Any] = {}) -> Self:
        return cls(device)

    def attest(self) -> Attestation:
        return Attestation(self._on, "a test", "none", self.precision)

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        self._dead = self._on == "right"
        self.in_warm_up()
        return {"scores": scores}

    def in_warm_up(self) -> None:
        if self._dead:
            raise RuntimeError("fell off the bus")


class OneOfTwoHangs(OneOfTwoDies):
    """``right`` hangs at its first white picture."""

    name = "one-of-two-hangs"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        if self._on == "right":
            wait_for_ever()
        return {"scores": scores}


class Unnamed(Plain):
    """On a server that is gone when LoadGen asks for its name."""

    name = "unnamed"
    model_elsewhere = True

    def round_trip(self) -> str:
        reach()
        raise ConnectionError("connection refused")


class CloseRaises(Plain):
    name = "close-raises"

    def close(self) -> None:
        raise RuntimeError("stuck door")


class OtherOutputs(Plain):
    name = "other-outputs"
    outputs = (TensorSpec("boxes", "float32", (None, 100, 4)),)


class OtherDevice(Plain):
    name = "other-device"
    device = "cuda:0"


class OtherPrecision(Plain):
    name = "other-precision"
    precision = "fp16"


class Gate(Plain):
    """Waits in the run until it may go on."""

    name = "gate"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        wait_for_go()
        return {"scores": scores}


class GateOffline(Plain):
    """Waits in Offline, whose batches are full, until it may go on."""

    name = "gate-offline"

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        if len(scores) > 1:
            wait_for_go()
        return {"scores": scores}


class Counts(Plain):
    """Says when it has seen a hundred batches with a white picture; works on."""

    name = "counts"
    batches = 0

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        self.batches += 1
        if self.batches == 100:
            reach()
        return {"scores": scores}


class WrongOnce(Plain):
    """Gives one wrong label, at a batch that accuracy mode does not get to."""

    name = "wrong-once"
    batches = 0

    def in_run(self, scores: Scores) -> Mapping[str, Any]:
        self.batches += 1
        if self.batches == 20:
            scores[0, 1] = 2
        return {"scores": scores}


class Remembers(Plain):
    """Answers at once where it is asked what it was asked last; its other work takes long."""

    name = "remembers"

    def runner(self, place: str = "host") -> PlainRunner:
        return RememberingRunner(self)


class RememberingRunner(PlainRunner):
    last: tuple[float, ...] = ()

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        asked = tuple(slot.buffers["images"][:, 0, 0, 0].tolist())
        if asked != self.last:
            time.sleep(0.02)
        self.last = asked
        return {"scores": np.eye(1, 1000, dtype=np.float32).repeat(slot.n, axis=0)}


class SlowToScore(Classification):
    name = "slow-to-score"

    @classmethod
    def score(cls, answers: Mapping[int, bytes], truth: Any, whole: bool = True) -> Top1:
        wait_for_ever()
        raise AssertionError


def _build_slowly(weights: object, say: object) -> Path:
    wait_for_ever()
    raise AssertionError


SLOW_TO_SCORE = replace(MODELS["efficientnet-lite0"], name="slow-to-score", task="slow-to-score")
SLOW_TO_BUILD = replace(MODELS["efficientnet-lite0"], name="slow-to-build", build=_build_slowly)
NO_BACKEND = dict
