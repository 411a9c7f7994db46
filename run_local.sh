#!/usr/bin/env bash
# Sets itself up on first use, then runs a command of sut, by default run: ./run_local.sh --help
set -euo pipefail

ROOT=$(readlink -f -- "${BASH_SOURCE[0]}")
ROOT=${ROOT%/*}
# shellcheck source-path=SCRIPTDIR source=tools/setup_env.sh
source "$ROOT/tools/setup_env.sh"

usage() {
    cat <<'END'
Usage: ./run_local.sh [BACKEND] [MODEL] [DEVICE] [options]
       ./run_local.sh COMMAND ...

  ./run_local.sh                                          the demo: four scenarios, then accuracy, on the demo photos
  ./run_local.sh onnxruntime efficientnet-lite0 cpu       one run with the default scenario
  ./run_local.sh onnxruntime efficientnet-lite0 cpu --scenario all --time 10
  ./run_local.sh onnxruntime resnet50 cpu --accuracy --dataset-path /data/imagenet
  ./run_local.sh openvino efficientnet-lite0 cpu --precision int8 --scenario Offline --time 10
  ./run_local.sh onnxruntime resnet50 gpu                 the build for the driver's CUDA; there must be one
  EXTRA_OPS='--time 60' ./run_local.sh onnxruntime mobilenet
  ./run_local.sh doctor                                   what is installed here, and what works

END
    printf 'COMMAND is one of %s: see ./run_local.sh COMMAND --help.\n' "$(commands)"
    cat <<'END'
Without one it is run. A backend of such a name is reached by --backend.

The first start makes .venv in the checkout and installs what is asked for there, some 140 MB; `--preprocess dali` adds
several hundred MB, a backend on a GPU 2 to 4 GB.
Environment: MODEL_DIR, DATA_DIR, OUTPUT_DIR; EXTRA_OPS (options to append); PYTHON (a Python 3.11 to 3.13 to make .venv with).

The options are those of `sut run`:
END
}

# Prints the commands of sut, a file each, those that most people want first.
commands() {
    local name found='run, doctor'
    for name in "$ROOT"/sut/cli/commands/[a-z]*.py; do
        name=${name##*/} name=${name%.py}
        [[ ", $found, " == *", $name, "* ]] || found+=", ${name//_/-}"
    done
    echo "$found"
}

is_command() { [[ ", $(commands), " == *", $1, "* ]]; }

# Prints the CUDA of the NVIDIA driver, as 12 or 13, or in one line why there is none. A container can have the driver
# without nvidia-smi.
driver_cuda() {
    local found
    found=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA[A-Z ]* Version: *\([0-9]*\).*/\1/p') || true
    [[ -n $found ]] || found=$("${PYTHON:-python3}" -I -c '
import sys
sys.path.insert(0, sys.argv[1])
from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound
try:
    print(installed_driver().major)
except DeviceNotFound as error:
    print(error)' "$ROOT" 2>/dev/null) || true
    echo "${found:-no NVIDIA driver (nvidia-smi finds none)}"
}

# Adds to `extras` what the table plugins/extras.txt has for the names $2, a comma list, of the kind $1. Words unknown
# there need nothing: `sut` refuses them. A backend is for the CPU unless the device is a GPU, and then a GPU must be there.
add_extras() {
    local kind name needed word
    while read -r kind name _ needed _; do
        [[ $kind == "$1" && ",$2," == *",$name,"* ]] || continue
        if [[ $needed == */*/* && ($kind != backend || -n $on_gpu) ]]; then
            cuda=${cuda-$(driver_cuda)}
            case $cuda in
                12) needed=${needed#*/} needed=${needed%/*} ;;
                1[3-9] | [2-9][0-9]) needed=${needed##*/} ;;
                *)
                    [[ $kind != backend ]] || refuse_gpu
                    needed=${needed%%/*}
                    ;;
            esac
        else
            needed=${needed%%/*}
        fi
        # PyCUDA is compiled, so only who insists on it has it.
        [[ $needed != *gpu-cu* || ${SUT_CUDA_LIBRARY-} != pycuda ]] || needed+=,pycuda
        for word in ${needed//,/ }; do
            [[ $word == - || " ${extras[*]} " == *" $word "* ]] || extras+=("$word")
        done
    done <"$ROOT/plugins/extras.txt"
}

# Prints the names of the channels in a comma list of names and brokers' URLs.
channels_of() { sed -E 's/:[^,]*//g; s/\b(rediss|unix)\b/redis/g' <<<"$1"; }

refuse_gpu() {
    [[ $cuda == *[!0-9]* ]] ||
        die "the device ${flag[device]} needs a driver for CUDA 12 or newer, and this one has CUDA $cuda: update the driver"
    die "the device ${flag[device]} cannot be used: $cuda"
}

# Prints, as a comma list, the values that the YAML file or result.json $1 has for the setting $2, at its top or below
# `matrix`.
values_of() {
    local line key top=0 section='' is_list='' found=()
    while IFS= read -r line || [[ -n $line ]]; do
        [[ $line != '{'* ]] || top=2 # the blank and the quote before a key of a result.json
        line=${line%%#*} line=${line//[\"\',$'\r'\[\]]/ }
        if [[ $line =~ ^[[:space:]]*-[[:space:]](.*) ]]; then
            [[ -z $is_list ]] || read -r -a found <<<"${found[*]} ${BASH_REMATCH[1]}"
        elif [[ $line =~ ^([[:space:]]*)([A-Za-z0-9_]+)[[:space:]]*:(.*) ]]; then
            key=${BASH_REMATCH[2]} is_list=
            [[ -n ${BASH_REMATCH[1]} ]] || section=$key
            if [[ $key == "$2" ]] && [[ ${#BASH_REMATCH[1]} == "$top" || $section == matrix ]]; then
                is_list=1
                read -r -a found <<<"${found[*]} ${BASH_REMATCH[3]}"
            fi
        fi
    done < <(head -c 1048576 -- "$1" 2>/dev/null | tr -d '\0')
    local IFS=,
    echo "${found[*]}"
}

if [[ ${1-} == -h || ${1-} == --help ]]; then
    usage
    set -- run --help
fi

command='' arguments=()
if [[ ${1-} == --version ]] || is_command "${1-}"; then
    command=$1
    shift
fi

# Backend, model and device come first: as options of run, as words of what takes them so.
declare -A flag=([backend]='' [model]='' [device]='' [dataset]='' [preprocess]='' [precision]='' [config]='' [from]=''
    [identify]='' [identify_backend]='' [identify_precision]='' [channel]='' [serve]='')
declare -A setting=()
for name in backend model device; do
    [[ $# -gt 0 && $1 != -* ]] || break
    case $command in
        '' | run) arguments+=("--$name" "$1") ;;
        tune) arguments+=("$1") flag[$name]=$1 ;;
        *) break ;;
    esac
    shift
done
arguments+=("$@")
case $command in
    '' | boundary | compare | plan | run | sweep | tune)
        read -r -d '' -a extra_ops <<<"${EXTRA_OPS-}" || true
        arguments+=("${extra_ops[@]}")
        ;;
esac
[[ -n $command || ${#arguments[@]} -gt 0 ]] || arguments=(--demo)
command=${command:-run}

# What decides the extras: a flag, else --set and the like, else the file of --config or --from, else the default.
previous='' is_help='' is_matrix=''
for argument in "${arguments[@]}"; do
    [[ $argument != --help ]] || is_help=1
    if [[ $argument == --*=* ]]; then
        previous=${argument%%=*} argument=${argument#*=}
    fi
    [[ $previous != --vary ]] || is_matrix=1
    for name in "${!flag[@]}"; do
        [[ ${previous//-/_} != "__$name" ]] || flag[$name]=$argument
        [[ ! $previous =~ ^--(set|space|vary)$ || $argument != "$name="* ]] || setting[$name]=${argument#*=}
    done
    previous=$argument
    [[ $command == audit ]] || continue
    for file in "$argument"/{,*/}performance/result.json; do # of the runs that are audited, all of one configuration
        [[ ! -f $file ]] || flag[from]=$file
    done
done
for file in "${flag[config]}" "${flag[from]}"; do
    [[ -f $file ]] || continue
    ! grep -q '^matrix[[:space:]]*:' -- "$file" 2>/dev/null || is_matrix=1
    for name in backend preprocess precision model device dataset identify identify_backend identify_precision channel \
        serve; do
        [[ -n ${flag[$name]}${setting[$name]-} ]] || flag[$name]=$(values_of "$file" "$name")
    done
done
for name in "${!flag[@]}"; do
    flag[$name]=${flag[$name]:-${setting[$name]-}}
    [[ ${flag[$name]} != *,* || ! $name =~ ^(backend|preprocess|precision|model)$ ]] || is_matrix=1
done
on_gpu=
[[ ! ,${flag[device],,} =~ ,(gpu|cuda) ]] || on_gpu=1
default=(onnxruntime opencv fp32)
if [[ $command == compare && -z $is_matrix$is_help ]]; then # all that works here, but for DALI's several hundred MB
    default=("onnxruntime,openvino" "opencv,fused" "fp32,int8")
elif [[ "$command ${arguments[0]-}" == "study ladder" && -z $is_help ]]; then # what the rungs of configs/ladder*.yaml name
    default=("pytorch,openvino" "opencv,fused,dali" "fp32,int8")
    [[ -z $on_gpu ]] || default=("pytorch,onnxruntime" "opencv,dali,cuda" fp16)
elif [[ "$command ${arguments[0]-}" == "study brokers" && -z $is_help ]]; then # its forms, and configs/detect-identify.yaml
    flag[channel]=redis,kafka flag[model]=${flag[model]:-planted-photos}
fi

extras=(models opencv)
case $command in
    dataset) add_extras dataset "${arguments[0]-}" ;;
    report) # that of a GPU has a part for each, and says itself where there is no GPU
        if [[ ${arguments[0]-} == gpu && ${cuda=$(driver_cuda)} =~ ^(1[2-9]|[2-9][0-9])$ ]]; then
            on_gpu=1
            add_extras backend onnxruntime,pytorch
            add_extras preprocess cuda,dali-gpu
            add_extras precision int8 # for TensorRT, where somebody has installed it
        fi
        ;;
    export) extras+=(kserve serve) ;;& # the messages that read what is written for Triton; what its Python model runs
    accuracy) [[ " ${arguments[*]}" != *" --annotations"* ]] || extras+=(detection) ;;
    check-log | kernels | show | verify) ;;
    *) # of submit only a rehearsal runs anything
        if [[ $command != submit || " ${arguments[*]} " == *" --rehearse "* ]]; then
            add_extras backend "${flag[backend]:-${default[0]}}"
            add_extras preprocess "${flag[preprocess]:-${default[1]}}"
            add_extras precision "${flag[precision]:-${default[2]}}"
            add_extras model "${flag[model]}"
            add_extras backend "${flag[identify_backend]}"
            add_extras precision "${flag[identify_precision]}"
            add_extras model "${flag[identify]}"
            add_extras channel "$(channels_of "${flag[channel]}")"
            [[ $command != serve && ! ,${flag[serve]} =~ ,(grpc|http) ]] || extras+=(serve kserve)
            add_extras score "${flag[dataset]}"
        fi
        ;;
esac

setup_env "${extras[@]}"
use_checkout
# -P: what lies in the user's directory is never imported.
exec "$VENV_PYTHON" -P -m sut "$command" "${arguments[@]}"
