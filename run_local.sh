#!/usr/bin/env bash
# Sets itself up on first use, then runs: ./run_local.sh --help
set -euo pipefail

ROOT=$(readlink -f -- "${BASH_SOURCE[0]}")
ROOT=${ROOT%/*}
# shellcheck source-path=SCRIPTDIR source=tools/setup_env.sh
source "$ROOT/tools/setup_env.sh"

usage() {
    cat <<'END'
Usage: ./run_local.sh [BACKEND] [MODEL] [DEVICE] [options]

  ./run_local.sh                                          the demo: four scenarios, then accuracy, on the demo photos
  ./run_local.sh onnxruntime efficientnet-lite0 cpu       one run with the default scenario
  ./run_local.sh onnxruntime efficientnet-lite0 cpu --scenario all --time 10
  ./run_local.sh onnxruntime resnet50 cpu --accuracy --dataset-path /data/imagenet
  EXTRA_OPS='--time 60' ./run_local.sh onnxruntime mobilenet

The first start makes .venv in the checkout and installs what BACKEND needs there; `--preprocess dali` adds several
hundred MB.
Environment: MODEL_DIR, DATA_DIR, OUTPUT_DIR; EXTRA_OPS (options to append); PYTHON (a Python 3.11 to 3.13 to make .venv with).

The options are those of `sut run`:
END
}

# Adds to `extras` what runs backend $1 on device $2 with preprocessor $3. Words unknown here need nothing: `sut run`
# refuses them.
add_extras() {
    case "$1 $2" in
        "onnxruntime "*) extras+=(onnxruntime) ;;
    esac
    case "$3" in
        dali*) extras+=(dali) ;; # several hundred MB
        fused) extras+=(numba) ;;
    esac
}

if [[ ${1-} == -h || ${1-} == --help ]]; then
    usage
    setup_env models onnxruntime opencv
    use_checkout
    exec "$VENV_PYTHON" -P -m sut run --help
fi

arguments=()
for option in --backend --model --device; do
    [[ $# -gt 0 && $1 != -* ]] || break
    arguments+=("$option" "$1")
    shift
done
read -r -d '' -a extra_ops <<<"${EXTRA_OPS-}" || true
arguments+=("$@" "${extra_ops[@]}")

backend=onnxruntime device=cpu preprocess=opencv previous=
for argument in "${arguments[@]}"; do
    case $argument in
        --backend=*) backend=${argument#*=} ;;
        --device=*) device=${argument#*=} ;;
        --preprocess=*) preprocess=${argument#*=} ;;
    esac
    case $previous in
        --backend) backend=$argument ;;
        --device) device=$argument ;;
        --preprocess) preprocess=$argument ;;
    esac
    previous=$argument
done
extras=(models opencv)
add_extras "$backend" "$device" "$preprocess"

[[ ${#arguments[@]} -gt 0 ]] || arguments=(--demo)
setup_env "${extras[@]}"
use_checkout
# -P: what lies in the user's directory is never imported.
exec "$VENV_PYTHON" -P -m sut run "${arguments[@]}"
