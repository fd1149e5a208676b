#!/usr/bin/env bash
# From a bare machine with CUDA and torch to measured results: unpack, check, prepare, test, measure. No network.
#
#   benchmarks/gpu.sh [OPTIONS] [STAGE...]
#
# Stages, all of them in this order if none is named; a machine that is lent for minutes at a time takes one by one:
#   unpack   onnxruntime-gpu out of --parts, and --wheels, into WORK/site, which goes before what is installed
#   check    what is missing here, by name; which peers are here
#   prepare  random weights, and what each system makes of them
#   test     pytest -m gpu tests/gpu
#   measure  the peers in turns, and the bars
#
# Options:
#   --parts DIR     onnxruntime-gpu as parts of an archive, ort.tar.xz.*; the installed one if left out
#   --wheels DIR    wheels of what is missing; pip installs them without dependencies and without an index
#   --work DIR      weights, exports, logs: 25 GB for sd15   [build/gpu]
#   --name NAME     of the results   [the device's]
#   --python PATH   [python3]
#   --dry-run       the tiny architecture on the CPU, results in WORK: rehearses all of it without a GPU
#   --              what follows goes to peers.py, such as -- --rounds 5 --systems sdrt,diffusers
#
# Results: benchmarks/results/NAME.json, NAME.md and NAME-tests.txt. Exit code 1 if something is missing or failed;
# bars that are not met are results.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

work=build/gpu parts="" wheels="" name="" python=python3 dry="" stages=() passed=()
device=cuda architecture=sd15 failed=0

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' benchmarks/gpu.sh
}

complain() {
  printf 'gpu.sh: %s\n' "$1" >&2
  exit 2
}

while (($#)); do
  case $1 in
    --parts | --wheels | --work | --name | --python)
      (($# > 1)) || complain "$1: expected a value"
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    --dry-run) dry=1 ;;
    -h | --help) usage && exit ;;
    --) shift && passed=("$@") && break ;;
    unpack | check | prepare | test | measure) stages+=("$1") ;;
    *) complain "unknown option or stage $1: see benchmarks/gpu.sh --help" ;;
  esac
  shift
done
((${#stages[@]})) || stages=(unpack check prepare test measure)
for folder in "$parts" "$wheels"; do
  [[ -z $folder || -d $folder ]] || complain "$folder: no such folder"
done

mkdir -p "$work" && work=$(cd "$work" && pwd) || complain "$work: cannot be made"
site=$work/site results=benchmarks/results
export PYTHONPATH="$site:$PWD/runtime:$PWD/export:$PWD/models${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 ORT_DISABLE_TELEMETRY=1 PIP_NO_INPUT=1

device_name() {
  nvidia-smi --query-gpu=name --format=csv,noheader -i 0 2> /dev/null | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9\n' '-'
}

if [[ $dry ]]; then
  device=cpu architecture=tiny results=$work name=${name:-dry-run}
  passed=(--rounds 1 "${passed[@]}")
fi
name=${name:-$(device_name)}
name=${name:-gpu}

unpack() {
  mkdir -p "$site"
  if [[ $parts ]]; then
    compgen -G "$parts/ort.tar.xz.*" > /dev/null || complain "$parts: expected the parts ort.tar.xz.00 and on"
    cat "$parts"/ort.tar.xz.* | tar -xJ -C "$site" || return
  fi
  if [[ $wheels ]]; then
    compgen -G "$wheels/*.whl" > /dev/null || complain "$wheels: expected wheels, *.whl"
    "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$site" "$wheels"/*.whl
  fi
}

check() {
  "$python" benchmarks/presence.py --device "$device" && compare --list
}

compare() {
  "$python" benchmarks/peers.py --device "$device" --architecture "$architecture" --work "$work/$architecture" "$@"
}

prepare() {
  compare --prepare "${passed[@]}"
}

# A test that is skipped says nothing of a GPU.
test_on_gpu() {
  local said="$results/$name-tests.txt"
  "$python" -m pytest -m gpu tests/gpu -p no:cacheprovider 2>&1 | tee "$said" || return
  [[ $dry ]] || ! grep -q '^SKIPPED' "$said"
}

measure() {
  compare --json "$results/$name.json" --report "$results/$name.md" "${passed[@]}"
}

for stage in "${stages[@]}"; do
  printf '\n=== %s\n' "$stage"
  start=$SECONDS
  case $stage in
    test) test_on_gpu ;;
    *) "$stage" ;;
  esac
  code=$?
  printf '=== %s: exit code %d, %d s\n' "$stage" "$code" "$((SECONDS - start))"
  ((code)) && failed=1
  # Without what the others need there is no use in going on.
  [[ $code -ne 0 && $stage == @(unpack|check) ]] && break
done
exit "$failed"
