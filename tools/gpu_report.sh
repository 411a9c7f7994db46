#!/usr/bin/env bash
# What the GPU of this machine can do, as this project sees it: tools/gpu_report.sh OUT
#
# Writes OUT/report.json and OUT/report.md. Parts that cannot run say why; a machine without an NVIDIA GPU is refused.
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
