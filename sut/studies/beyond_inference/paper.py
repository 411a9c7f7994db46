"""What "Beyond Inference" claims, figure by figure, but for those of the brokers between two models (2, 10, 11).

A. F. AbouElhamayed, S. Balle, D. Singh, M. S. Abdelfattah, "Beyond Inference: Performance Analysis of DNN Server
Overheads for Computer Vision", DAC 2024, arXiv 2403.12981. A claim has their number where the paper's abstract or text
is known to have it; a direction alone is one without.
"""

from __future__ import annotations

from functools import partial

from sut.studies.beyond_inference import predicates as when
from sut.studies.claims import Claim, Figures, Ours
from sut.studies.sweeping.grids import WAYS

NOT_INFERENCE = {"medium": 0.56, "large": 0.97}
"""Of the latency at zero load, by size of picture, "up to": of their models the one with the largest share."""
LOST_THROUGHPUT = 0.8
A_LARGE_SHARE = 0.5
"""Where the paper has no number."""

SAYS = {
    "latency-medium": "At zero load up to 56 % of a medium picture's latency is not inference",
    "latency-large": "At zero load up to 97 % of a large picture's latency is not inference",
    "latency-gpu": "Preprocessing on the GPU changes the latency at zero load, by the size of the picture",
    "waiting": "Loaded, waiting is a large share of the latency (more than half, at p99 of medium pictures)",
    "throughput": "Data processing and movement cost about 80 % of the throughput of large pictures",
    "decline": "At high concurrency throughput declines",
    "memory": "The decline is memory that is full (the authors only postulate eviction)",
    "models": "From MobileNetV2 to ViT-B inference's share of the work grows: with small models preprocessing decides",
    "models-gpu": "Preprocessing on the GPU instead of the CPU raises throughput, by a different factor for each model",
    "tinyvit": "TinyViT is faster end to end than its inference alone",
    "devices": "Large pictures that are preprocessed on the CPU gain less from more GPUs than inference alone does",
    "devices-gpu": "Preprocessed on the GPUs, large pictures gain more from more of them than preprocessed on the CPU",
    "energy": "A large picture takes more energy than a medium one",
    "energy-gpu": "It makes a difference to a picture's energy whether it is preprocessed on the CPU or on the GPU",
    "ladder": "All optimisations of serving together: 431 to 1,600 images/s, which is 3.7 x, not the 8 x of the text",
    "rungs": "Each optimisation adds throughput to those before",
    "gpu-decode": "Decoding on the GPU adds throughput to decoding in batches on the CPU",
}
"""By the key of a claim."""


def _claim(key: str, figure: str, judge: when.Judge, command: str, *parts: str, theirs: str | None = None) -> Claim:
    return Claim(key, figure, SAYS[key], theirs, parts or (key,), judge, command)


def _tax(pictures: str, figures: Figures) -> Ours:
    return when.share_of_latency(f"latency-{pictures}", "tax", NOT_INFERENCE[pictures], figures)


_BOTTLENECK = "breakdown --bottleneck --pictures large"
_ZERO_LOAD = [f"latency-{size}{way}" for way in ("", "-gpu") for size in when.SIZES]
_TINYVIT = "breakdown --bottleneck --model tinyvit --weights random --pictures medium"
_WAITING = partial(when.share_of_latency, "latency-medium", "waiting", A_LARGE_SHARE)
_LOST = partial(when.lost_throughput, "throughput-large", LOST_THROUGHPUT)
_ALONE, _ON_GPUS = (partial(when.more_from_devices, *each) for each in (("devices", WAYS[2]), ("devices-gpu", WAYS[1])))
_SWEEP = "sweep --boundary jpeg --rates none"

CLAIMS = (
    _claim("latency-medium", "6", partial(_tax, "medium"), "breakdown --pictures medium", theirs="56 %"),
    _claim("latency-large", "6", partial(_tax, "large"), "breakdown --pictures large", theirs="97 %"),
    _claim("latency-gpu", "6", when.gain_by_size, "breakdown --preprocess opencv,cuda", *_ZERO_LOAD),
    _claim("waiting", "7", _WAITING, "breakdown --pictures medium", "latency-medium"),
    _claim("throughput", "abstract", _LOST, _BOTTLENECK, "throughput-large", theirs="80 %"),
    _claim("decline", "5", when.declines, _SWEEP, "concurrency"),
    _claim("memory", "5", when.by_memory, _SWEEP, "concurrency"),
    _claim("models", "4", when.share_grows, "study models"),
    _claim("models-gpu", "4", when.gain_by_model, "study models --preprocess opencv,cuda", "models", "models-gpu"),
    _claim("tinyvit", "TinyViT", partial(when.beats_inference, "tinyvit"), _TINYVIT),
    _claim("devices", "9", _ALONE, "sweep --devices 1..4"),
    _claim("devices-gpu", "9", _ON_GPUS, "sweep --devices 1..4", "devices", "devices-gpu"),
    _claim("energy", "8", when.energy_by_size, "study energy"),
    _claim("energy-gpu", "8", when.energy_by_place, "study energy --device gpu", "energy", "energy-gpu"),
    _claim("ladder", "3", when.in_all, "study ladder", theirs="3.7 x"),
    _claim("rungs", "3", when.each_rung, "study ladder", "ladder"),
    _claim("gpu-decode", "3", when.gpu_rung, "study ladder --config configs/ladder-gpu.yaml", "ladder"),
)
"""In the order in which the page has them."""
