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
  ./run_local.sh openvino efficientnet-lite0 cpu --precision int8 --scenario Offline --time 10
  EXTRA_OPS='--time 60' ./run_local.sh onnxruntime mobilenet

The first start makes .venv in the checkout and installs what BACKEND needs there; `--preprocess dali` and
`--precision int8` add several hundred MB.
Environment: MODEL_DIR, DATA_DIR, OUTPUT_DIR; EXTRA_OPS (options to append); PYTHON (a Python 3.11 to 3.13 to make .venv with).

The options are those of `sut run`:
END
}

# Prints which CUDA's packages fit the NVIDIA driver, 12 or 13; nothing where there is none, which `sut run` says better.
cuda_major() {
    local version
    version=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA[A-Z ]* Version: *\([0-9]*\).*/\1/p') || return 0
    case $version in
        12) echo 12 ;;
        1[3-9] | [2-9][0-9]) echo 13 ;;
    esac
}

# Adds to `extras` what runs backend $1 with preprocessor $2 in precision $3 and model $4. Words unknown here need
# nothing: `sut run` refuses them.
add_extras() {
    local cuda=
    case "$2" in
        cuda | dali*) cuda=$(cuda_major) ;;
    esac
    case "$1" in
        onnxruntime | openvino) extras+=("$1") ;;
    esac
    case "$2" in
        dali*) # several hundred MB; never both, since they write the same module
            if [[ $cuda == 12 ]]; then extras+=(dali-cuda12); else extras+=(dali); fi
            ;;
        fused) extras+=(numba) ;;
    esac
    case "$2" in
        cuda | dali-gpu*) [[ -z $cuda ]] || extras+=("cuda$cuda") ;;
    esac
    case "$3" in
        int8) extras+=(nncf) ;;
    esac
    case "$4" in
        efficientnet-lite[12]) extras+=(more-models) ;;
    esac
}

# Prints the setting $2 of the YAML file $1; nothing where it has none.
setting_of() {
    head -c 1048576 -- "$1" 2>/dev/null | sed -n "s/^$2[[:space:]]*:[[:space:]]*[\"']\{0,1\}\([A-Za-z0-9._/-]*\).*/\1/p" 2>/dev/null | tail -n 1 || true
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

# What decides the extras: a flag, else the file of --config, else the default.
declare -A chosen=([backend]='' [preprocess]='' [precision]='' [model]='' [config]='')
previous=
for argument in "${arguments[@]}"; do
    for name in "${!chosen[@]}"; do
        [[ $argument != "--$name="* ]] || chosen[$name]=${argument#*=}
        [[ $previous != "--$name" ]] || chosen[$name]=$argument
    done
    previous=$argument
done
if [[ -f ${chosen[config]} ]]; then
    for name in backend preprocess precision model; do
        [[ -n ${chosen[$name]} ]] || chosen[$name]=$(setting_of "${chosen[config]}" "$name")
    done
fi
extras=(models opencv)
add_extras "${chosen[backend]:-onnxruntime}" "${chosen[preprocess]:-opencv}" "${chosen[precision]:-fp32}" "${chosen[model]}"

[[ ${#arguments[@]} -gt 0 ]] || arguments=(--demo)
setup_env "${extras[@]}"
use_checkout
# -P: what lies in the user's directory is never imported.
exec "$VENV_PYTHON" -P -m sut run "${arguments[@]}"
