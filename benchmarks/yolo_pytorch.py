"""A detector as submitters usually serve it: one JPEG at a time, in PyTorch, all of it inside the clock.

python benchmarks/yolo_pytorch.py [--pictures 64] [--threads N] [--precision fp32,bf16]

Reads, letterboxes (OpenCV), infers a batch of one (the ONNX file of ``--model yolo11 --weights random`` as onnx2torch
has it), suppresses (OpenCV) and goes on to the next, over the demo photos. Beside it stands what
``./run_local.sh compare --config configs/yolo11.yaml`` measures. Exit code: 0 measured; 1 wrong usage.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from numpy.typing import NDArray

from backends.base import ModelFile
from backends.pytorch_models import load_module
from benchmarks.document import Parser, short, table
from sut.config import make_config
from sut.pipeline.assembly import assemble
from sut.process.cgroup import usable_cores

SIZE, GREY = 640, 114
SCORE, OVERLAP = 0.001, 0.7
"""The thresholds of MLPerf's reference."""
PRECISIONS = ("fp32", "bf16")
_WARM_UP = 3


def letterboxed(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The whole picture in the middle of a grey square, RGB, 0 to 1: (1, 3, SIZE, SIZE)."""
    height, width = picture.shape[:2]
    scale = SIZE / max(height, width)
    rows, columns = round(height * scale), round(width * scale)
    top, left = (SIZE - rows) // 2, (SIZE - columns) // 2
    square = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    square[top : top + rows, left : left + columns] = cv2.resize(picture, (columns, rows))
    return np.ascontiguousarray(square[np.newaxis, :, :, ::-1].transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def boxes(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """The boxes that stay, (n, 6), of a raw output (4 + classes, anchors)."""
    classes, scores = output[4:].argmax(axis=0), output[4:].max(axis=0)
    good = scores > SCORE
    centres, sizes = output[:2, good].T, output[2:4, good].T
    places = np.concatenate([centres - sizes / 2, sizes], axis=1)
    stay = cv2.dnn.NMSBoxesBatched(places.tolist(), scores[good].tolist(), classes[good].tolist(), SCORE, OVERLAP)
    chosen = np.asarray(stay, np.intp).reshape(-1)
    found: NDArray[np.float32] = np.column_stack([places, scores[good], classes[good]])[chosen].astype(np.float32)
    return found


def loop(module: Any, dtype: Any, files: Sequence[Path], pictures: int) -> list[float]:
    """Seconds of each picture, from its file to its boxes, one after the other."""
    import torch

    took = []
    with torch.inference_mode():
        for number in range(pictures + _WARM_UP):
            begin = time.perf_counter()
            tensor = torch.from_numpy(letterboxed(cv2.imread(str(files[number % len(files)])))).to(dtype)
            boxes(module(tensor)[0].float().numpy())
            took.append(time.perf_counter() - begin)
    return took[_WARM_UP:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--pictures", type=int, default=64, help="of each precision (64)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of PyTorch (all usable cores)")
    parser.add_argument("--precision", default=",".join(PRECISIONS), help="comma list of fp32, bf16")
    given = parser.parse_args(arguments)
    wanted = given.precision.split(",")
    if unknown := sorted({*wanted} - {*PRECISIONS}):
        parser.error(f"unknown precision {unknown[0]}; expected fp32 or bf16")

    import torch

    torch.set_num_threads(given.threads)
    parts = assemble(make_config({"model": "yolo11", "weights": "random", "threads": given.threads}))
    assert parts.model is not None
    files = [parts.dataset.root / file for file in parts.dataset.files]
    rows = []
    for precision in wanted:
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        file = ModelFile(parts.model.onnx, precision, parts.spec.recipe.sample_shape)
        module = load_module(torch, file, None).module.to(dtype)
        took = loop(module, dtype, files, given.pictures)
        p90 = 1000 * float(np.quantile(took, 0.9))
        rows.append((precision, short(len(took) / sum(took)), short(p90), str(given.threads)))
    print("\n".join(table(("PyTorch, one by one", "pictures/s", "p90 ms", "threads"), rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
