"""What may be asked of stages on a cluster. Knows nothing of Ray."""

from __future__ import annotations

from sut.config import RunConfig
from sut.errors import InputError

_OF_CLUSTER = {
    "infer_resources": "infer_place=ray",
    "preprocess_resources": "preprocess_place=ray and preprocess_workers",
    "redo_lost": "infer_place=ray or preprocess_place=ray",
    "cluster": "--infer-place ray, or --preprocess-place ray with --preprocess-workers",
}
"""Settings, and those without which each has nothing to do."""


def check_cluster(config: RunConfig) -> None:
    """Refuse a stage on Ray without a cluster, what it cannot have, and settings of it where there is none."""
    infers, prepares = config.infer_place == "ray", config.prepares_on_ray
    if (infers or prepares) and config.cluster is None:
        place = "--infer-place" if infers else "--preprocess-place"
        raise InputError(f"{place} ray needs a cluster: add --cluster auto, HOST:PORT or ray://HOST:PORT")
    used = {"infer_resources": infers, "preprocess_resources": prepares}
    for name, needed in _OF_CLUSTER.items():
        given = getattr(config, name) != RunConfig.model_fields[name].default
        if given and not used.get(name, infers or prepares):
            raise InputError(f"{name} has no effect without {needed}: leave it out")
    if not (infers or prepares):
        return
    for name in ("slowdown", "identify"):
        if getattr(config, name) != RunConfig.model_fields[name].default:
            raise InputError(f"{name} is of stages in this process: leave it out, or the stages on Ray")
    if infers and (len(config.devices) > 1 or config.lane_sets or config.boundary == "device"):
        raise InputError(
            "--infer-place ray: each lane's actor has one device and the cores that its node gives it, so --device "
            f"takes one name (got {config.device}), --affinity no lanes, and --boundary not device"
        )
