# shellcheck shell=bash
# Sourced by run_local.sh and run_tests.sh, which set ROOT (the checkout): makes $ROOT/.venv and keeps it complete.
#
#   setup_env EXTRA...   installs the project with these extras of plugins/extras.txt, where one is missing. NAME-cuNN
#                        takes the place of NAME and of another CUDA's, whose packages go; NAME is there with any of them
#
# Its files in .venv: setup.stamp  the extras that are installed, and the sums of the files they were installed from
#                     setup.busy   packages are being changed; where it outlives its set-up, .venv is made anew
#                     setup.lock   held by the set-up that is at work, and by a pip that outlived it
#                     setup.log    what venv and pip said last
#                     setup.requirements, setup.pins, setup.report, setup.hashed, setup.wheels   what is asked of pip

VENV=$ROOT/.venv
VENV_PYTHON=$VENV/bin/python
LOCK_WAIT_S=1800

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$*"
    exit 2
}

# Prints the version of the interpreter $1. Fails with 3 where it is no CPython 3.11 to 3.13, with 1 where it cannot make
# a virtual environment, with 126 or 127 where it does not run at all (a shim can be there and have nothing behind it).
probe_python() {
    "$1" -c '
import sys
print("%d.%d.%d" % sys.version_info[:3])
if not (3, 11) <= sys.version_info[:2] < (3, 14) or sys.implementation.name != "cpython":
    sys.exit(3)
import ensurepip, venv
' 2>/dev/null
}

# Sets `python` and `version` to the interpreter that makes .venv.
find_python() {
    local code without_venv=
    if [[ -n ${PYTHON-} ]]; then
        python=$PYTHON code=0
        version=$(probe_python "$python") || code=$?
        case $code in
            0) return ;;
            1) die "PYTHON=$PYTHON is Python $version without venv: install it (Debian, Ubuntu: apt install python${version%.*}-venv) or name another" ;;
            3) die "PYTHON=$PYTHON is ${version:+Python $version}: CPython 3.11, 3.12 or 3.13 is needed; name one of them, or unset PYTHON" ;;
            *) die "PYTHON=$PYTHON does not run: name a CPython 3.11, 3.12 or 3.13, or unset PYTHON" ;;
        esac
    fi
    for python in python3.13 python3.12 python3.11 python3; do
        code=0
        version=$(probe_python "$python") || code=$?
        [[ $code != 0 ]] || return 0
        [[ $code != 1 ]] || without_venv=${without_venv:-$version}
    done
    [[ -z $without_venv ]] || die "Python $without_venv has no venv: install it (Debian, Ubuntu: apt install python${without_venv%.*}-venv), then start again"
    die "no Python 3.11, 3.12 or 3.13 found: install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: PYTHON=/path/to/python3 $0"
}

# PYTHON counts when .venv is made; a .venv of another version is not silently used in its stead.
check_python_agrees() {
    local python version made=
    find_python
    [[ ! -f $VENV/pyvenv.cfg ]] || made=$(sed -n 's/^version *= *//p' "$VENV/pyvenv.cfg")
    [[ -z $made || ${made%.*} == "${version%.*}" ]] ||
        die "PYTHON=$PYTHON is Python $version, but $VENV was made with $made: remove $VENV, or unset PYTHON"
}

# The sums carry the paths of the files: a checkout that was moved is installed again.
fingerprint() { sha256sum "$ROOT/setup.py" "$ROOT/plugins/extras.txt" "$ROOT/constraints.txt"; }

installed_extras() { head -n 1 "$VENV/setup.stamp" 2>/dev/null || true; }

is_complete() {
    local extras sums extra
    [[ -x $VENV_PYTHON && -f $VENV/setup.stamp && ! -e $VENV/setup.busy ]] || return 1
    { read -r extras && IFS= read -r -d '' sums || true; } <"$VENV/setup.stamp"
    [[ $sums == "$(fingerprint)"$'\n' ]] || return 1
    for extra; do
        [[ " $extras " == *" $extra "* || " $extras " == *" $extra-cu"[0-9]* ]] || return 1
    done
}

# Prints what the project with the extras $1 (words) downloads where nothing of it is there, and how long that takes.
size_of() {
    local extra step mb total=0 time="a minute or more"
    while read -r _ _ _ extra step mb _; do
        [[ $step != always && " $1 " != *" $extra "* ]] || total=$((total + ${mb:-0}))
    done <"$ROOT/plugins/extras.txt"
    [[ $total -lt 300 ]] || time="some minutes"
    echo "some $total MB, $time"
}

# Runs a command that may take long, its output in the log. In the background, so that a signal is answered at once.
step() {
    local code=0
    "$@" </dev/null >>"$VENV/setup.log" 2>&1 &
    step_pid=$!
    wait "$step_pid" || code=$?
    step_pid=
    return "$code"
}

interrupted() {
    trap - INT TERM HUP QUIT
    if [[ -n $step_pid ]]; then
        kill "$step_pid" 2>/dev/null || true
        wait "$step_pid" 2>/dev/null || true
    fi
    [[ -z $changing ]] || forget_untouched
    say "set-up interrupted; the next start finishes it"
    exit 130
}

# A pip that stopped before it changed anything (no network, Ctrl-C in a download) left a working .venv as it was.
forget_untouched() {
    [[ ! -f $VENV/setup.stamp ]] || grep -qsE '^(Installing collected packages|Found existing installation)' "$VENV/setup.log" ||
        rm -f "$VENV/setup.busy"
}

# PyCUDA's build takes the headers from beside the nvcc on PATH, and says no more than the first one it misses.
check_compilers() {
    local nvcc
    [[ " $* " == *" pycuda "* ]] || return 0
    nvcc=$(command -v nvcc) && command -v g++ >/dev/null && [[ -f ${nvcc%/*}/../include/curand.h ]] ||
        die "PyCUDA is compiled from its source: it needs g++ and, first on PATH, the nvcc of a whole CUDA toolkit, with cuRAND's headers (Debian, Ubuntu: apt install g++ nvidia-cuda-toolkit); CuPy, which is used without SUT_CUDA_LIBRARY=pycuda, needs neither"
}

# One line on why venv or pip failed: pip's last error, else the last thing said.
reason() {
    local line last='' error=''
    while IFS= read -r line; do
        [[ -z ${line//[[:space:]]/} ]] || last=$line
        [[ ! $line =~ ^[[:space:]]*(ERROR:.*) ]] || error=${BASH_REMATCH[1]}
    done <"$VENV/setup.log"
    last=${error:-$last}
    printf '%s' "${last:-nothing was logged, is the disk full?}"
    if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Network is unreachable|No matching distribution' "$VENV/setup.log"; then
        printf ' (packages could not be fetched: is there a network?)'
    fi
    printf ' (log: %s)' "$VENV/setup.log"
}

make_venv() {
    local python version
    find_python
    say "making $VENV with Python $version (some seconds)"
    find "$VENV" -mindepth 1 -maxdepth 1 ! -name 'setup.l*' -exec rm -rf -- {} +
    : >"$VENV/setup.busy" || die "cannot write to $VENV: is the disk full?"
    step env -u PYTHONPATH -u PYTHONHOME "$python" -m venv "$VENV" || die "making $VENV failed: $(reason)"
}

lock() { "$VENV_PYTHON" -P -I "$ROOT/tools/lock.py" "$@"; }

run_pip() {
    cd -- "$ROOT" && exec env -u PYTHONPATH -u PYTHONHOME PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$VENV_PYTHON" -P -m pip --no-input "$@"
}

pip_install() { run_pip install --no-user --progress-bar off "$@"; }

# Installs the project with the extras $@. pip knows no hash of the project itself, so it is asked first what is missing;
# that is installed by the hashes in constraints.txt, the project last. On x86_64 all are wheels, so that no code of a
# package runs before its hash was checked; elsewhere LoadGen is built from its source, and PyCUDA is everywhere.
install_hashed() {
    local kind=(--only-binary :all:) from=() rivals
    [[ $(uname -m) == x86_64 ]] || kind=(--prefer-binary)
    lock requirements "$@" >"$VENV/setup.requirements" 2>>"$VENV/setup.log" && lock pins "$@" >"$VENV/setup.pins" || return
    step pip_install --dry-run --report "$VENV/setup.report" "${kind[@]}" \
        -c "$VENV/setup.pins" -r "$VENV/setup.requirements" || return
    lock hashed "$VENV/setup.report" "$@" >"$VENV/setup.hashed" 2>>"$VENV/setup.log" || return
    [[ " $* " != *" pycuda "* ]] || kind+=(--no-binary pycuda)
    rivals=$(lock rivals "$@") || return
    if [[ -n $rivals ]]; then # they go when what comes in their place is here
        from=(--find-links "$VENV/setup.wheels")
        [[ " $* " == *" pycuda "* ]] || from+=(--no-index) # pip fetches what it builds that with
        step run_pip download --progress-bar off --no-deps "${kind[@]}" --require-hashes -r "$VENV/setup.hashed" \
            -d "$VENV/setup.wheels" || return
        # shellcheck disable=SC2086 # words
        step run_pip uninstall -y $rivals || return
    fi
    if [[ -s $VENV/setup.hashed ]]; then
        step pip_install --no-deps "${kind[@]}" "${from[@]}" --require-hashes -r "$VENV/setup.hashed" || return
        rm -rf -- "$VENV/setup.wheels"
    fi
    step pip_install --no-deps --no-build-isolation -e .
}

setup_env() {
    local lock error sums extras build code=0 owned=
    step_pid='' changing=''
    [[ -z ${PYTHON-} ]] || check_python_agrees
    ! is_complete "$@" || return 0
    check_compilers "$@"

    SECONDS=0
    [[ $ROOT != *:* ]] || die "a checkout whose path has a colon cannot have a virtual environment: move $ROOT"
    command -v flock >/dev/null || die "flock is not installed (package util-linux)"
    [[ ! -e $VENV/setup.lock ]] || owned=1
    error=$(mkdir -p -- "$VENV" 2>&1) || die "cannot make $VENV: $error"
    error=$(: 2>&1 >>"$VENV/setup.lock") || die "cannot write to $VENV: ${error##*: }"
    exec {lock}>>"$VENV/setup.lock"
    trap interrupted INT TERM HUP QUIT
    if ! flock -n "$lock"; then
        say "another set-up of $VENV is at work: waiting for it (at most $((LOCK_WAIT_S / 60)) minutes)"
        step flock -w "$LOCK_WAIT_S" "$lock" || die "the other set-up of $VENV did not end: stop it (it may be a pip), then start again"
        owned=1
    fi

    if ! is_complete "$@"; then
        : >"$VENV/setup.log" || die "cannot write to $VENV: is the disk full?"
        sums=$(fingerprint)
        probe_python "$VENV_PYTHON" >/dev/null || code=$?
        if [[ $code == 0 && ! -e $VENV/setup.busy ]]; then
            # shellcheck disable=SC2046 # words
            set -- $(installed_extras) "$@"
        elif [[ -n $owned || ! -e $VENV/pyvenv.cfg ]]; then
            [[ ! -e $VENV/setup.busy ]] || say "the last set-up did not finish: starting it again"
            make_venv
        else
            rm -f "$VENV/setup.lock"
            die "$VENV is there, but no working Python 3.11, 3.12 or 3.13 with pip: remove it, then start again"
        fi
        extras=$(lock extras "$@") || die "$VENV/bin/python cannot read $ROOT/plugins/extras.txt"
        say "installing ${extras// /, } (the first time $(size_of "$extras"); log: $VENV/setup.log)"
        # shellcheck disable=SC2086 # words
        build=$(lock build $extras 2>>"$VENV/setup.log") || true # pip says it better
        [[ -z $build ]] || say "$build"
        : >"$VENV/setup.busy"
        changing=1
        # shellcheck disable=SC2086 # words
        if ! install_hashed $extras; then
            forget_untouched
            die "pip failed: $(reason)"
        fi
        printf '%s\n%s\n' "$extras" "$sums" >"$VENV/setup.stamp.new" || die "cannot write to $VENV: is the disk full?"
        mv -f -- "$VENV/setup.stamp.new" "$VENV/setup.stamp"
        rm -f -- "$VENV/setup.busy"
        say "set-up done in $SECONDS s"
    fi
    trap - INT TERM HUP QUIT
    exec {lock}>&-
}

# The checkout first on the path, whatever else is called sut, backends or preprocess on this machine.
use_checkout() {
    unset PYTHONHOME
    export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
}
