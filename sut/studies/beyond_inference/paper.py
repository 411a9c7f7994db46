"""What "Beyond Inference" claims, figure by figure, but for those of the brokers between two models (2, 10, 11).

A. F. AbouElhamayed, S. Balle, D. Singh, M. S. Abdelfattah, "Beyond Inference: Performance Analysis of DNN Server
Overheads for Computer Vision", DAC 2024, arXiv 2403.12981. A claim has their number where the paper's abstract or text
is known to have it; a direction alone is one without.
"""

from __future__ import annotations

from functools import partial

from sut.studies.beyond_inference import predicates
from sut.studies.beyond_inference.parts import PARTS
from sut.studies.claims import Claim
from sut.studies.sweeping.grids import WAYS

__all__ = ["A_LARGE_SHARE", "CLAIMS", "LOST_THROUGHPUT", "NOT_INFERENCE", "PARTS"]

NOT_INFERENCE = {"medium": 0.56, "large": 0.97}
"""Of the latency at zero load, by size of picture, "up to": of their models the one with the largest share."""
LOST_THROUGHPUT = 0.8
A_LARGE_SHARE = 0.5
"""Where the paper has no number."""

CLAIMS = (
    Claim(
        "latency-medium",
        "6",
        "At zero load up to 56 % of a medium picture's latency is not inference",
        "56 %",
        ("latency-medium",),
        partial(predicates.share_of_latency, "latency-medium", "tax", NOT_INFERENCE["medium"]),
        "breakdown --pictures medium",
    ),
    Claim(
        "latency-large",
        "6",
        "At zero load up to 97 % of a large picture's latency is not inference",
        "97 %",
        ("latency-large",),
        partial(predicates.share_of_latency, "latency-large", "tax", NOT_INFERENCE["large"]),
        "breakdown --pictures large",
    ),
    Claim(
        "latency-gpu",
        "6",
        "Preprocessing on the GPU changes the latency at zero load, by the size of the picture",
        "-",
        ("latency-medium", "latency-large", "latency-gpu"),
        predicates.gain_by_size,
        "breakdown --preprocess opencv,cuda",
    ),
    Claim(
        "waiting",
        "7",
        "Loaded, waiting is a large share of the latency (more than half, at p99 of medium pictures)",
        "-",
        ("latency-medium",),
        partial(predicates.share_of_latency, "latency-medium", "waiting", A_LARGE_SHARE),
        "breakdown --pictures medium",
    ),
    Claim(
        "throughput",
        "abstract",
        "Data processing and movement cost about 80 % of the throughput of large pictures",
        "80 %",
        ("throughput-large",),
        partial(predicates.lost_throughput, "throughput-large", LOST_THROUGHPUT),
        "breakdown --bottleneck --pictures large",
    ),
    Claim(
        "decline",
        "5",
        "At high concurrency throughput declines",
        "-",
        ("concurrency",),
        predicates.declines,
        "sweep --boundary jpeg --rates none",
    ),
    Claim(
        "memory",
        "5",
        "The decline is memory that is full (the authors only postulate eviction)",
        "-",
        ("concurrency",),
        predicates.by_memory,
        "sweep --boundary jpeg --rates none",
    ),
    Claim(
        "models",
        "4",
        "From MobileNetV2 to ViT-B inference's share of the work grows: with small models preprocessing decides",
        "-",
        ("models",),
        predicates.share_grows,
        "study models",
    ),
    Claim(
        "models-gpu",
        "4",
        "Preprocessing on the GPU instead of the CPU raises throughput, by a different factor for each model",
        "-",
        ("models",),
        predicates.gain_by_model,
        "study models --preprocess opencv,cuda",
    ),
    Claim(
        "tinyvit",
        "TinyViT",
        "TinyViT is faster end to end than its inference alone",
        "-",
        ("tinyvit",),
        partial(predicates.beats_inference, "tinyvit"),
        "breakdown --bottleneck --model tinyvit --weights random --pictures medium",
    ),
    Claim(
        "devices",
        "9",
        "Large pictures that are preprocessed on the CPU gain less from more GPUs than inference alone does",
        "-",
        ("devices",),
        partial(predicates.more_from_devices, "devices", WAYS[2]),
        "sweep --devices 1..4",
    ),
    Claim(
        "devices-gpu",
        "9",
        "Preprocessed on the GPUs, large pictures gain more from more of them than preprocessed on the CPU",
        "-",
        ("devices", "devices-gpu"),
        partial(predicates.more_from_devices, "devices-gpu", WAYS[1]),
        "sweep --devices 1..4",
    ),
    Claim(
        "energy",
        "8",
        "A large picture takes more energy than a medium one",
        "-",
        ("energy",),
        predicates.energy_by_size,
        "study energy",
    ),
    Claim(
        "energy-gpu",
        "8",
        "It makes a difference to a picture's energy whether it is preprocessed on the CPU or on the GPU",
        "-",
        ("energy", "energy-gpu"),
        predicates.energy_by_place,
        "study energy --device gpu",
    ),
    Claim(
        "ladder",
        "3",
        "All optimisations of serving together: 431 to 1,600 images/s, which is 3.7 x, not the 8 x of the text",
        "3.7 x",
        ("ladder",),
        predicates.in_all,
        "study ladder",
    ),
    Claim(
        "rungs",
        "3",
        "Each optimisation adds throughput to those before",
        "-",
        ("ladder",),
        predicates.each_rung,
        "study ladder",
    ),
    Claim(
        "gpu-decode",
        "3",
        "Decoding on the GPU adds throughput to decoding in batches on the CPU",
        "-",
        ("ladder",),
        predicates.gpu_rung,
        "study ladder --config configs/ladder-gpu.yaml",
    ),
)
"""In the order in which the page has them."""
