"""What of stages on a cluster needs none: what is refused, addresses, files that are sent, errors that travel."""

from __future__ import annotations

import hashlib
import pickle
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backends.base import TensorSpec
from preprocess.base import BadPicture
from sut.config import make_config
from sut.errors import InputError, RunError, SetupError
from sut.pipeline.assembly import assemble
from tests.core import module_needs

module_needs("ray")

from sut.pipeline.cluster.actors import _files  # noqa: E402
from sut.pipeline.cluster.infer import _ByValue  # noqa: E402
from sut.pipeline.cluster.member import Raised, words  # noqa: E402
from sut.pipeline.cluster.session import Cluster, _why, joined  # noqa: E402

AT = {"cluster": "127.0.0.1:6379"}
INFERS: dict[str, Any] = {"infer_place": "ray", **AT}
PREPARES: dict[str, Any] = {"preprocess_place": "ray", "preprocess_workers": 1, "boundary": "jpeg", **AT}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"infer_place": "ray"}, "--infer-place ray needs a cluster: add --cluster"),
        ({**PREPARES, "cluster": None}, "--preprocess-place ray needs a cluster"),
        (AT, "cluster has no effect without --infer-place ray, or --preprocess-place ray"),
        ({"redo_lost": True}, "redo_lost has no effect without"),
        ({**PREPARES, "infer_resources": {"GPU": 1}}, "infer_resources has no effect without infer_place=ray"),
        ({**INFERS, "preprocess_resources": {"GPU": 1}}, "preprocess_resources has no effect without"),
        ({**INFERS, "slowdown": {"infer": 2}}, "slowdown is of stages in this process"),
        ({**INFERS, "identify": "efficientnet-lite0", "boundary": "jpeg"}, "identify is of stages in this process"),
        ({**INFERS, "device": "cuda:0,cuda:1"}, "each lane's actor has one device"),
        ({**INFERS, "boundary": "device"}, "--boundary not device"),
        ({**INFERS, "affinity": "lanes=0"}, "--affinity no lanes"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anybody_is_asked(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        assemble(make_config({"backend": "simulated", **settings}))

    assert said in str(caught.value)


@pytest.mark.parametrize("address", ["here", "http://a:1", "a:b", "ray://a", "a:1 b:2", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="expected auto, HOST:PORT or ray://HOST:PORT"):
        make_config({"cluster": address})


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nobody_is_is_told_at_once(scheme: str) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unheard.getsockname()[1]}"

        with pytest.raises(SetupError, match=f"no Ray cluster answers at {place} \\(Connection refused\\)"):
            joined(scheme + place)


def test_without_a_cluster_on_this_machine_auto_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))

    with pytest.raises(SetupError, match="no Ray cluster runs on this machine: start one"):
        joined("auto")


@pytest.mark.parametrize("address", ["local", "127.0.0.1", "http://127.0.0.1:80", "[::1]:6379"])
def test_what_ray_is_told_and_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)

    with pytest.raises(SetupError) as caught:
        joined("auto")

    assert str(caught.value) == f"RAY_ADDRESS is {address!r}, expected auto, HOST:PORT or ray://HOST:PORT"


def test_ray_that_is_told_to_look_by_itself_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))

    with pytest.raises(SetupError, match="no Ray cluster runs on this machine: start one"):
        joined("auto")


def test_another_version_is_called_that() -> None:
    error = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.1.0\n    Python: 3.9.1\n")

    assert _why(error, "a:1") == (
        "the Ray cluster at a:1 is of other versions: Version mismatch: The cluster was started with: Ray: 2.1.0 "
        "Python: 3.9.1"
    )


def sums(*paths: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_files_that_a_node_has_are_read_there_and_others_are_kept_in_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    model, weights = tmp_path / "a.onnx", tmp_path / "a.data"
    model.write_bytes(b"graph")
    weights.write_bytes(b"weights")
    wanted = sums(model, weights)
    assert _files(wanted, ()) == [model, weights]

    weights.write_bytes(b"others")

    assert _files(wanted, ()) is None
    kept = _files(wanted, (b"graph", b"weights"))
    assert kept is not None
    assert [path.name for path in kept] == ["a.onnx", "a.data"]
    assert [path.read_bytes() for path in kept] == [b"graph", b"weights"]
    assert kept[0].parent == kept[1].parent != tmp_path


@pytest.mark.parametrize(
    "error", [InputError("bad input"), SetupError("no device"), RunError("it broke"), BadPicture(2, "no picture")]
)
def test_what_is_raised_on_a_node_is_raised_here(error: Exception) -> None:
    found = pickle.loads(pickle.dumps(Raised.of(error))).here

    assert (type(found), str(found)) == (type(error), str(error))
    assert getattr(found, "position", None) == getattr(error, "position", None)


def test_what_only_a_node_knows_keeps_its_name() -> None:
    class Odd(Exception):
        """Cannot be sent."""

    found = pickle.loads(pickle.dumps(Raised.of(Odd("odd")))).here

    assert (getattr(found, "kind", None), str(found)) == ("Odd", "odd")


def test_what_was_done_again_is_told_by_actor() -> None:
    cluster = Cluster("a:1")
    assert cluster.notes() == []

    cluster.redone.update({"infer-0": 2, "preprocess-1": 1})

    assert cluster.notes() == ["batches done again since a node of the cluster was lost: 3 (infer-0 2, preprocess-1 1)"]


def test_the_cpu_time_of_an_actor_that_was_lost_counts_beside_that_of_the_next() -> None:
    cluster = Cluster("a:1")
    member: Any = SimpleNamespace(cluster=cluster, process=("infer-0", 1), ask=lambda *told: ({}, 1, 900))
    runner = _ByValue(member, [TensorSpec("images", "float32", (None, 1))])
    runner.infer(runner.slot(1))

    member.process, member.ask = ("infer-0", 2), lambda *told: ({}, 1, 50)
    runner.infer(runner.slot(1))

    assert sum(cluster.cpu_ns.values()) == 950


def test_resources_in_words() -> None:
    assert words({"CPU": 0.5, "GPU": 1.0}) == "CPU 0.5, GPU 1"
