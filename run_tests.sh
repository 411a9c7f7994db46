#!/usr/bin/env bash
# Sets itself up, then runs every check: ./run_tests.sh [--all] [--core] [--fix] [pytest arguments]
#
#   ./run_tests.sh                             format, lint, types, shell scripts, the fast tests
#   ./run_tests.sh --all                       the slow tests too, with a Triton server in .venv-triton
#   ./run_tests.sh --core                      without DALI, CuPy, NNCF and PyTorch: what needs them is skipped, and why is told
#   ./run_tests.sh --fix                       first has ruff format the code and mend what it can
#   ./run_tests.sh tests/unit -k ledger -x     with arguments for pytest; paths are relative to the checkout
#
# Every step runs; the exit code is that of the first one that failed.
set -euo pipefail

ROOT=$(readlink -f -- "${BASH_SOURCE[0]}")
ROOT=${ROOT%/*}
# shellcheck source-path=SCRIPTDIR source=tools/setup_env.sh
source "$ROOT/tools/setup_env.sh"

# Hundreds of children are started, each of which would compile every module anew.
unset PYTHONDONTWRITEBYTECODE

all='' core='' fix=''
pytest_arguments=()
for argument; do
    case $argument in
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "$ROOT/run_tests.sh" | sed '/^set /d'
            exit 0
            ;;
        --all) all=1 ;;
        --core) core=1 ;;
        --fix) fix=1 ;;
        *) pytest_arguments+=("$argument") ;;
    esac
done
# One more at a time than two cores have: many tests sleep with the devices that they plant.
[[ ${#pytest_arguments[@]} -gt 0 ]] || pytest_arguments=(-n 3 --dist worksteal)
[[ -n $all ]] || pytest_arguments=(-m "not slow" "${pytest_arguments[@]}")

steps="always start core tests"
unset SUT_TESTS_CORE
if [[ -n $core ]]; then
    steps="always start core"
    export SUT_TESTS_CORE=1
fi
extras=()
while read -r _ _ _ extra step _; do
    [[ $extra == - || " $steps " != *" $step "* ]] || extras+=("$extra")
done <"$ROOT/plugins/extras.txt"

setup_env "${extras[@]}"
if [[ -n $all ]]; then
    # shellcheck source-path=SCRIPTDIR source=tools/triton_venv.sh
    source "$ROOT/tools/triton_venv.sh"
    setup_triton
fi
use_checkout
cd -- "$ROOT"

failed=()
first_code=0

# Runs a check and says how long it took; the check called pytest says so itself, in its closing line.
check() {
    local name=$1 code=0 start=${EPOCHREALTIME/[.,]/}
    shift
    printf '== %s\n' "$name"
    "$@" || code=$?
    if [[ $code != 0 ]]; then
        failed+=("$name (exit $code)")
        [[ $first_code != 0 ]] || first_code=$code
    fi
    [[ $name == pytest ]] || printf -- '-- %s: %d ms, exit %d\n' "$name" $(((${EPOCHREALTIME/[.,]/} - start) / 1000)) "$code"
}

if [[ -n $fix ]]; then
    check "ruff format, to mend" "$VENV_PYTHON" -P -m ruff format .
    check "ruff check, to mend" "$VENV_PYTHON" -P -m ruff check --fix .
fi
check "ruff format" "$VENV_PYTHON" -P -m ruff format --check .
check "ruff check" "$VENV_PYTHON" -P -m ruff check .
check mypy "$VENV_PYTHON" -P -m mypy
shellcheck=$VENV/bin/shellcheck
[[ -x $shellcheck ]] || shellcheck=$(command -v shellcheck || true)
if [[ -n $shellcheck ]]; then
    check shellcheck "$shellcheck" -x run_local.sh run_tests.sh .ci/run tools/*.sh
fi
check pytest "$VENV_PYTHON" -P -m pytest --durations=10 "${pytest_arguments[@]}"

if [[ $first_code != 0 ]]; then
    printf -v list '%s, ' "${failed[@]}"
    say "failed: ${list%, }"
fi
exit "$first_code"
