#!/usr/bin/env bash
# What the GPU of this machine can do, as this project sees it: tools/gpu_report.sh OUT
#
# Writes OUT/report.json and OUT/report.md: the GPU, its copy bandwidth, the runtimes, and the kernels checked, timed and
# profiled, preprocessing compared with the oracle and timed. Parts that cannot run say why. Exit code: 0; 1 wrong usage;
# 2 no NVIDIA GPU; 3 a part did not run or found something wrong, and which one. Reports kept in docs/gpu/NAME/
# shorten the list of what has not run on hardware: tools/gpu_not_run.py.
# Python: $PYTHON, else the checkout's .venv, else python3. Packages brought by hand: put their folder on PYTHONPATH.
set -euo pipefail

ROOT=$(readlink -f -- "${BASH_SOURCE[0]}")
ROOT=${ROOT%/tools/*}
[[ $# -eq 1 && $1 != -* ]] || {
    echo "usage: tools/gpu_report.sh OUT" >&2
    exit 1
}
python=${PYTHON-}
if [[ -z $python ]]; then
    python=python3
    [[ ! -x $ROOT/.venv/bin/python ]] || python=$ROOT/.venv/bin/python
fi
PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} exec "$python" "$ROOT/tools/gpu_report.py" "$1"
