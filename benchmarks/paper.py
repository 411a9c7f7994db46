"""What the paper "Beyond Inference" and the thesis say, claim by claim.

The paper: A. F. AbouElhamayed, S. Balle, D. Singh, M. S. Abdelfattah, "Beyond Inference: Performance Analysis of DNN
Server Overheads for Computer Vision", DAC 2024, arXiv 2403.12981. A claim has a number where its abstract or text is
known to have it.
"""

from __future__ import annotations

from functools import partial

from benchmarks.claims import (
    Claim,
    by_memory,
    declines,
    each_rung,
    in_all,
    of_latency,
    of_throughput,
    outlier,
    rung,
    share_grows,
)
from sut.studies.breakdown.cells import LOADED, ZERO

_A_LARGE_SHARE = 0.5
"""Where the source has no number."""
_NO_BROKER = "a message broker between two models; the product has none yet"
_NO_GPU = "an NVIDIA GPU"
CLAIMS = (
    Claim(
        "2, 10, 11",
        "With Redis between a face detector and the model behind it throughput is 2.25 x Kafka's, at 25 faces a frame",
        needs=_NO_BROKER,
    ),
    Claim("2, 10, 11", "The broker is 71 % of the latency with Kafka, 6 % with Redis", needs=_NO_BROKER),
    Claim("2, 10, 11", "Below 9 faces a frame both models in one process are better than any broker", needs=_NO_BROKER),
    Claim(
        "3",
        "All optimisations of serving together: 431 to 1,600 images/s, which is 3.7 x, not the 8 x of the text",
        study="ladder",
        judge=in_all,
        needs=f"{_NO_GPU} for the paper's own rungs (`--config configs/ladder-gpu.yaml`)",
    ),
    Claim("3", "Each optimisation adds throughput to those before", study="ladder", judge=each_rung),
    Claim(
        "3",
        "Decoding on the GPU adds throughput to decoding in batches on the CPU",
        study="ladder",
        judge=partial(rung, "GPU decode"),
    ),
    Claim(
        "4",
        "From MobileNetV2 to ViT-B inference's share of the work grows: with small models preprocessing decides",
        study="models",
        judge=share_grows,
    ),
    Claim(
        "4",
        "Preprocessing on the GPU instead of the CPU raises throughput, by a different factor for each model",
        command="study models --preprocess opencv,cuda",
        needs=_NO_GPU,
    ),
    Claim(
        "TinyViT",
        "TinyViT is faster end to end than its inference alone",
        study="tinyvit",
        judge=outlier,
        needs=f"{_NO_GPU} for tensors that have to be moved to one",
    ),
    Claim("5", "At high concurrency throughput declines", study="sweep", judge=declines),
    Claim(
        "5",
        "The decline is memory that is full (the authors only postulate eviction)",
        study="sweep",
        judge=by_memory,
    ),
    *(
        Claim(
            "6",
            f"At zero load up to {100 * share:.0f} % of a {pictures} picture's latency is not inference (here {model})",
            study=study,
            judge=partial(of_latency, pictures, ZERO, "p50", "tax", share),
            needs=f"{_NO_GPU}: on the CPU inference takes longer, and the rest a smaller share",
        )
        for study, model, pictures, share in (
            ("breakdown", "EfficientNet-Lite0", "medium", 0.56),
            ("breakdown-large", "EfficientNet-Lite0", "large", 0.97),
            ("breakdown-vit-b", "ViT-B", "medium", 0.56),
            ("breakdown-vit-b-large", "ViT-B", "large", 0.97),
        )
    ),
    Claim(
        "6",
        "Preprocessing on the GPU changes the latency at zero load, by the size of the picture",
        command="breakdown --preprocess opencv,cuda",
        needs=_NO_GPU,
    ),
    Claim(
        "7",
        "Loaded, waiting is a large share of the latency (more than half, at p99 of medium pictures)",
        study="breakdown",
        judge=partial(of_latency, "medium", LOADED, "p99", "waiting", _A_LARGE_SHARE),
    ),
    Claim(
        "abstract",
        "Data processing and movement cost about 80 % of the throughput of large pictures",
        study="bottleneck",
        judge=partial(of_throughput, "large", 0.8),
    ),
    Claim(
        "8",
        "The energy of a picture, by its size and by where it is preprocessed",
        command="study energy --device gpu",
        needs=f"{_NO_GPU}, and counters of the CPU that may be read ([energy.md](energy.md))",
    ),
    Claim(
        "9",
        "How throughput grows with GPUs: preprocessing on the CPU, on the GPU, and inference only",
        command="sweep --devices 1..4",
        needs="several NVIDIA GPUs; [on planted devices](sweep.md#cores-and-devices) it is within 5 % of min(P, n x I)",
    ),
)
"""The paper, figure by figure."""
THESIS = (
    Claim(
        "speed",
        "ResNet-50 by MLPerf's reference harness, scenario by scenario",
        command="python benchmarks/reference.py HARNESS",
        needs="the thesis's GPU; the harness beside this system on this CPU is in "
        "[performance.md](performance.md#beside-mlperfs-reference-harness)",
    ),
    Claim(
        "transposes",
        "A transpose by tiles in shared memory is faster than a naive one",
        command="kernels bench",
        needs=_NO_GPU,
    ),
    Claim(
        "profiles",
        "What `cudaMalloc`, `cudaMemcpy` and `cudaFree` take depends on the kernel",
        command="kernels bench --api",
        needs=f"{_NO_GPU}; what else explains it is in [kernels.md](kernels.md#the-calls-of-cudas-api)",
    ),
)
"""The thesis, table by table: it ran MLPerf's reference harness and made a transpose faster."""
