# shellcheck shell=bash
# Sourced by run_tests.sh behind setup_env.sh: makes $ROOT/.venv-triton, where the Triton server of the tests is.
#
#   setup_triton   installs it where it is not there, or is of other requirements. A machine that cannot have it is told
#                  why in a line, and goes on: the tests that need it are skipped, and fail where all must run
#
# Of nvidia-pytriton only the server is used, by its own command line: bin/tritonserver starts it with what it needs, as
# does nobody else's Python. For each model it starts a stub, a Python 3.11 or 3.12 with a NumPy before 2.

TRITON=$ROOT/.venv-triton
TRITON_REQUIREMENTS=$ROOT/tools/triton-requirements.txt

# The path is in there as well: a checkout that was moved is installed again.
triton_fingerprint() { sha256sum "$TRITON_REQUIREMENTS" "$ROOT/tools/triton_venv.sh"; }

# Sets `python` to an interpreter that the server has a stub for, and NumPy 1.26 a wheel.
find_triton_python() {
    local version
    for python in "$VENV_PYTHON" python3.12 python3.11; do
        version=$(probe_python "$python") || continue
        [[ $version != 3.11.* && $version != 3.12.* ]] || return 0
    done
    return 1
}

# Makes it in the folder $1, with the log $2.
make_triton() {
    local made=$1 site server stub library
    "$python" -m venv --without-pip "$made" || return
    env -u PYTHONPATH -u PYTHONHOME "$VENV_PYTHON" -P -m pip --python "$made/bin/python" --no-input install \
        --progress-bar off --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "$TRITON_REQUIREMENTS" || return
    site=$("$made/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return
    server=$site/pytriton/tritonserver
    stub=$("$made/bin/python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])') || return
    # A Python that is built with a library has it in a folder of its own, where nobody else looks.
    library=$("$made/bin/python" -I -c '
import sysconfig
print("/".join(sysconfig.get_config_vars("LIBDIR", "INSTSONAME")) if sysconfig.get_config_var("Py_ENABLE_SHARED") else "")
') || return
    [[ -z $library ]] || ln -sf "$library" "$site/nvidia_pytriton.libs/" || return
    if ldd "$server/python_backend_stubs/$stub/triton_python_backend_stub" | grep "not found"; then
        echo "the stub of Python $stub lacks a library (Debian, Ubuntu: apt install libpython$stub)"
        return 1
    fi
    mkdir -p "$made/backends/python" || return
    # As they will be called: the folder is renamed when all is there.
    server=$TRITON${server#"$made"}
    ln -s "$server"/backends/python/{libtriton_python.so,triton_python_backend_utils.py} \
        "$server/python_backend_stubs/$stub/triton_python_backend_stub" "$made/backends/python/" || return
    cat >"$made/bin/tritonserver" <<END || return
#!/bin/sh
unset PYTHONPATH PYTHONHOME
PATH="$TRITON/bin:\$PATH" exec "$server/bin/tritonserver" --backend-directory "$TRITON/backends" "\$@"
END
    chmod +x "$made/bin/tritonserver"
}

setup_triton() {
    local sums python made=$TRITON.$$ log=$TRITON.log
    sums=$(triton_fingerprint)
    [[ $(cat "$TRITON/setup.stamp" 2>/dev/null) != "$sums" ]] || return 0
    SECONDS=0
    if ! find_triton_python; then
        say "no Triton server for the tests: it needs Python 3.11 or 3.12 beside the one of .venv"
        return
    fi
    say "making $TRITON with the Triton server for the tests (some 75 MB, half a minute; log: $log)"
    if ! make_triton "$made" >"$log" 2>&1 </dev/null; then
        rm -rf -- "$made"
        say "no Triton server for the tests: $(tail -n 1 "$log") (log: $log)"
        return
    fi
    echo "$sums" >"$made/setup.stamp"
    rm -rf -- "$TRITON"
    mv -- "$made" "$TRITON"
    say "Triton's server done in $SECONDS s"
}
