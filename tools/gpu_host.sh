#!/usr/bin/env bash
# sut report gpu on a host that reaches no package index: tools/gpu_host.sh first|second [SECONDS]. For one of two loads of
# packages, in SECONDS (520, 330) from now, unpacking included. Whatever ends it, $OUT has what was found by then:
# report.json, report.md, what was printed, and all of the report's folder in report.tgz, written anew every ten seconds.
#
# Packages lie in folders below /tmp/site: base (LoadGen and what is Python), jpeg (nvImageCodec, DALI), pycuda, ort; a
# .gpu/unpack.sh puts them there, if there is one. The second load goes on with the first one's report: on the same machine
# it lies in /tmp; on another, bring the first one's report.tgz along in .gpu/.
set -uo pipefail
site=/tmp/site report=/tmp/report load=${1-}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 SUT_CACHE_DIR=/tmp/sut-cache
# PyCUDA is for the parts that insist on it themselves.
export SUT_CUDA_LIBRARY=cupy PATH=$PATH:/usr/local/cuda/bin
export PYTHONPATH=$PWD:$site/ort:$site/base:$site/jpeg:$site/pycuda

case $load in
  first) sets=(base jpeg pycuda ort) seconds=${2:-520} ;;
  second) sets=(dali) seconds=${2:-330} ;;
  *) echo "usage: tools/gpu_host.sh first|second [SECONDS]" >&2; exit 1 ;;
esac

keep() { # at most 8 files come back
  [[ -d $report ]] || return 0
  cp "$report"/report.{json,md} "$OUT/" 2>/dev/null
  # A file that changes meanwhile is no reason to keep nothing.
  tar -C "${report%/*}" --warning=no-file-changed -czf "$OUT/.report.tgz" report; [[ $? -le 1 ]] &&
    mv "$OUT/.report.tgz" "$OUT/report.tgz"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,power.limit --format=csv,noheader
[[ $load == first || -d $report || ! -f .gpu/report.tgz ]] || tar -C "${report%/*}" -xzf .gpu/report.tgz
[[ ! -f .gpu/unpack.sh ]] || bash .gpu/unpack.sh "${sets[@]}" ||
  echo "gpu_host.sh: going on without what could not be unpacked" >&2

python3 -P -m sut report gpu --output "$report" --load "$load" --budget $((seconds - SECONDS)) >"$OUT/printed.txt" 2>&1 &
pid=$!
trap 'kill -TERM $pid 2>/dev/null' TERM INT HUP
while kill -0 $pid 2>/dev/null; do
  sleep 10 &
  wait -n $pid $! 2>/dev/null
  kill $! 2>/dev/null
  keep
done
wait $pid
code=$?
keep
tail -n 60 "$OUT/printed.txt"
echo "== $SECONDS s: done, exit code $code"
exit $code
