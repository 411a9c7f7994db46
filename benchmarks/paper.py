"""What the paper "Beyond Inference" and the thesis say, claim by claim, and which study's file tells of it.

What the paper says, ``sut/studies/beyond_inference/paper.py`` has, but for the brokers.
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
from sut.studies.beyond_inference.paper import A_LARGE_SHARE, LOST_THROUGHPUT, NOT_INFERENCE, SAYS
from sut.studies.beyond_inference.predicates import GPU_RUNG
from sut.studies.breakdown.cells import LOADED, ZERO

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
        SAYS["ladder"],
        study="ladder",
        judge=in_all,
        needs=f"{_NO_GPU} for the paper's own rungs (`--config configs/ladder-gpu.yaml`)",
    ),
    Claim("3", SAYS["rungs"], study="ladder", judge=each_rung),
    Claim(
        "3",
        SAYS["gpu-decode"],
        study="ladder",
        judge=partial(rung, GPU_RUNG),
    ),
    Claim(
        "4",
        SAYS["models"],
        study="models",
        judge=share_grows,
    ),
    Claim(
        "4",
        SAYS["models-gpu"],
        command="study models --preprocess opencv,cuda",
        needs=_NO_GPU,
    ),
    Claim(
        "TinyViT",
        SAYS["tinyvit"],
        study="tinyvit",
        judge=outlier,
        needs=f"{_NO_GPU} for tensors that have to be moved to one",
    ),
    Claim("5", SAYS["decline"], study="sweep", judge=declines),
    Claim(
        "5",
        SAYS["memory"],
        study="sweep",
        judge=by_memory,
    ),
    *(
        Claim(
            "6",
            f"{SAYS[f'latency-{pictures}']} (here {model})",
            study=study,
            judge=partial(of_latency, pictures, ZERO, "p50", "tax", NOT_INFERENCE[pictures]),
            needs=f"{_NO_GPU}: on the CPU inference takes longer, and the rest a smaller share",
        )
        for study, model, pictures in (
            ("breakdown", "EfficientNet-Lite0", "medium"),
            ("breakdown-large", "EfficientNet-Lite0", "large"),
            ("breakdown-vit-b", "ViT-B", "medium"),
            ("breakdown-vit-b-large", "ViT-B", "large"),
        )
    ),
    Claim(
        "6",
        SAYS["latency-gpu"],
        command="breakdown --preprocess opencv,cuda",
        needs=_NO_GPU,
    ),
    Claim(
        "7",
        SAYS["waiting"],
        study="breakdown",
        judge=partial(of_latency, "medium", LOADED, "p99", "waiting", A_LARGE_SHARE),
    ),
    Claim(
        "abstract",
        SAYS["throughput"],
        study="bottleneck",
        judge=partial(of_throughput, "large", LOST_THROUGHPUT),
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
