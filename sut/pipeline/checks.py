"""What does not go together in a config and the classes that it names: refused in one line, before anything is made."""

from __future__ import annotations

from backends.base import Backend
from plugins.errors import DeviceNotFound
from plugins.registry import suggest
from preprocess.base import Preprocessor
from sut.channels.registry import settings_of
from sut.config import RunConfig
from sut.errors import InputError, SetupError, one_line
from sut.models.preparation import form_for
from sut.pipeline.cluster.settings import check_cluster
from sut.pipeline.loading import load_channel
from sut.process.affinity import Affinity


def check_together(config: RunConfig, backend: type[Backend], preprocessor: type[Preprocessor]) -> Affinity:
    """All of it. The core sets on this machine, once they fit the devices. Raises ``InputError`` or ``SetupError``."""
    check_cluster(config)
    _check_device(config, backend)
    affinity = _affinity_of(config)
    _check_options(config, backend)
    _check_forwarding(config, backend, preprocessor)
    _check_identify(config, preprocessor)
    _check_serve(config, backend)
    return affinity


def _check_device(config: RunConfig, backend: type[Backend]) -> None:
    """Refuse words that are no device at all, and devices that the backend knows not to be there.

    Before the model is looked for: no model helps where the device is missing.
    """
    known = {*backend.devices(), "cpu", "gpu", "cuda"}
    for word in config.devices:
        kind, _, number = word.partition(":")
        if not (word in known or (kind == "cuda" and number.isdigit()) or backend.takes_device(word)):
            raise InputError(f"unknown device '{word}'; {suggest(word, known)}, cuda:N")
    if config.boundary == "device" and len(config.devices) > 1:
        raise InputError(
            f"--boundary device keeps the samples in the memory of one GPU, got --device {config.device}: name one "
            "device, or take --boundary tensor"
        )
    if config.infer_place == "ray":  # of another machine, where it is asked again
        return
    try:
        for word in config.devices:
            backend.check_device(word)
    except DeviceNotFound as error:
        raise SetupError(one_line(error)) from error
    except ValueError as error:
        raise InputError(one_line(error)) from error


def _affinity_of(config: RunConfig) -> Affinity:
    """The core sets on this machine, which must be one, or as many as there are devices; of one CPU any number."""
    found = Affinity.of(config.affinity)
    sets, devices = len(found.lanes), len(config.devices)
    if sets > 1 and sets != devices and config.device != "cpu":
        raise InputError(
            f"--affinity: got {sets} core sets of the lanes for --device {config.device}; expected one, or one for "
            "each device (only the device cpu may be several)"
        )
    return found


def _check_options(config: RunConfig, backend: type[Backend]) -> None:
    """Refuse what the backend does not know, before anything is made for it."""
    for device in config.devices:
        form_for(backend, config.precision, device)
    try:
        backend.read_options(config.backend_options)
    except ValueError as error:
        raise InputError(one_line(error)) from error


def _check_forwarding(config: RunConfig, backend: type[Backend], preprocessor: type[Preprocessor]) -> None:
    """Refuse a preprocessor that leaves all to a server, where there is none, or nothing is left to do."""
    if not preprocessor.forwards():
        return
    if not backend.model_elsewhere:
        raise InputError(
            f"the preprocessor {config.preprocess} leaves preprocessing to a server, and the backend {config.backend} "
            "is none; take opencv, or the backend kserve"
        )
    if not config.times_preprocessing:
        raise InputError(
            f"--preprocess {config.preprocess} sends pictures, and at the boundary {config.boundary} they are "
            "preprocessed before the clock: take --boundary jpeg or pixels"
        )
    if config.preprocess_workers:
        raise InputError(f"preprocess_workers: --preprocess {config.preprocess} has nothing to do; leave them out")


def _check_identify(config: RunConfig, preprocessor: type[Preprocessor]) -> None:
    """Refuse what a pipeline of two models cannot have, and settings of the second where there is none."""
    if config.identify is None:
        names = [name for name in RunConfig.model_fields if name.startswith("identify_")] + ["channel", "fan_out"]
        given = (name for name in names if getattr(config, name) != RunConfig.model_fields[name].default)
        if name := next(given, None):
            raise InputError(f"{name} is of a second model, and there is none; add --identify MODEL")
        return
    if not config.times_preprocessing:
        raise InputError(
            f"--identify cuts crops out of the frame, which is not there at the boundary {config.boundary}; "
            "take --boundary jpeg or pixels"
        )
    for name in ("preprocess_workers", "slowdown", "rules"):
        if getattr(config, name) != RunConfig.model_fields[name].default:
            raise InputError(f"{name} is for one model: leave it out, or --identify")
    if preprocessor.run_pixels is Preprocessor.run_pixels or "host" not in preprocessor.places:
        raise InputError(
            f"--identify cuts crops out of decoded pixels, and the preprocessor {config.preprocess} "
            "shows none in the host's memory; take opencv or fused"
        )
    if config.channel != "none":
        load_channel(settings_of(config.channel).channel)
    if config.fan_out is not None and config.mode == "accuracy":
        raise InputError("--fan-out makes crops that nobody has labelled: leave it out, or --accuracy")


def _check_serve(config: RunConfig, backend: type[Backend]) -> None:
    """Refuse what cannot be put behind a server that the run starts."""
    if config.serve == "none":
        return
    if backend.model_elsewhere:
        raise InputError(
            f"--serve starts a server, and the backend {config.backend} asks one that is there: leave one out"
        )
    if config.boundary == "device":
        raise InputError("--serve: at the boundary device inputs are in the memory of one process; take tensor")
    for name in ("identify", "slowdown", "cluster"):
        if getattr(config, name) != RunConfig.model_fields[name].default:
            raise InputError(f"--serve: {name} is for a system that is asked in its own process; leave one out")
    if config.preprocess_workers and config.preprocess_place != "thread":
        raise InputError("--serve: a server preprocesses in threads; take --preprocess-place thread")
