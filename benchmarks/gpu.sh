#!/usr/bin/env bash
# Measures on a bare machine with CUDA and torch, stage by stage, without a network.
#
#   benchmarks/gpu.sh [OPTIONS] [STAGE...]
#   python -m benchmarks gpu [OPTIONS] [STAGE...]
#
# Stages, all of them in this order by default. Name single ones on a machine that you have for minutes at a time:
#   unpack   puts onnxruntime-gpu from --parts, and --wheels, into WORK/site, which takes precedence over installed ones
#   check    lists what is missing, and which other systems this machine has
#   prepare  makes random weights, and what each system loads
#   test     runs pytest -m gpu tests/gpu
#   measure  measures the systems in turns, and checks the goals
#   latency  runs sdrt benchmark over sizes and batches, also with low_vram, and sdrt doctor --size
#   profile  lists the kernels of a step, without CUDA graphs and with them
#   choose   compares the runtime with alternatives: other session settings, a graph for the rest of a step
#
# Options:
#   --parts DIR     onnxruntime-gpu as parts of an archive (ort.tar.xz.00 and so on)   [default: the installed one]
#   --wheels DIR    wheels of missing packages; pip installs them without dependencies and without an index
#   --work DIR      folder for weights, exports and logs; 25 GB for sd15   [default: build/gpu of the checkout]
#   --name NAME     name of the results   [default: the name of the device]
#   --python PATH   the interpreter   [default: python3]
#   --dry-run       rehearse without a GPU: the tiny architecture on the CPU, results in WORK, parts and a wheel that the
#                   script makes, graphs of target cuda run by NumPy, sdrt as if it were not installed
#   --              pass the rest to `peers`, such as -- --rounds 5 --within 540 --systems sdrt,diffusers
#
# Paths are relative to the current folder. `measure` continues where it stopped; -- --no-resume starts again.
# Results in benchmarks/results: NAME.json and NAME.md (the comparison), NAME-tests.txt, NAME-latency.json, .txt and .png,
# NAME-low-vram.json, NAME-doctor.txt, NAME-kernels.json, NAME-kernels-graph.json, NAME-choices.json, NAME-step.json.
# pytest's whole log is WORK/NAME-tests.log. The exit code is 1 if something is missing, failed or unfinished. A missed
# goal is a result and no failure.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1

work=$root/build/gpu parts="" wheels="" name="" python=python3 dry="" stages=() passed=()
device=cuda architecture=sd15 size=512 sizes=512,768 batches=1,4 failed=0

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$root/benchmarks/gpu.sh"
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
    unpack | check | prepare | test | measure | latency | profile | choose) stages+=("$1") ;;
    *) complain "unknown option or stage $1: see benchmarks/gpu.sh --help" ;;
  esac
  shift
done
((${#stages[@]})) || stages=(unpack check prepare test measure latency profile choose)
for folder in "$parts" "$wheels"; do
  [[ -z $folder || -d $folder ]] || complain "$folder: no such folder"
done

[[ $python != */* || $python == /* ]] || python=$PWD/$python
mkdir -p "$work" && work=$(cd "$work" && pwd) || complain "$work: cannot create it"
site=$work/site results=$root/benchmarks/results

device_name() {
  nvidia-smi --query-gpu=name --format=csv,noheader -i 0 2> /dev/null | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9\n' '-'
}

hide=""
if [[ $dry ]]; then
  device=cpu architecture=tiny size=64 sizes=64 batches=1,2 results=$work name=${name:-dry-run}
  passed=(--rounds 1 "${passed[@]}")
  PYTHONPATH=$root "$python" -m benchmarks.rehearsal make "$work/rehearsal" || complain "$python: cannot prepare the rehearsal"
  parts=${parts:-$work/rehearsal/parts} wheels=${wheels:-$work/rehearsal/wheels} hide=$work/rehearsal/hide:
  # NumPy plays the GPU in tests/gpu.
  export SDRT_GPU_REHEARSAL=1
fi
name=${name:-$(device_name)}
name=${name:-gpu}
[[ $name != */* ]] || complain "--name $name: expected a name, not a path"
[[ $("$python" -c 'print(1)' 2> /dev/null) == 1 ]] || complain "--python $python: does not run Python"
export PYTHONPATH="$hide$site:$root:$root/runtime:$root/export:$root/models${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 ORT_DISABLE_TELEMETRY=1 PIP_NO_INPUT=1

# The unpacked packages may contain libraries too.
find_libraries() {
  local found
  found=$("$python" -m benchmarks.libraries) && export LD_LIBRARY_PATH=$found
}

unpack() {
  mkdir -p "$site"
  if [[ $parts ]]; then
    "$python" -m benchmarks.unpack "$parts" "$site" || return
  fi
  if [[ $wheels ]]; then
    compgen -G "$wheels/*.whl" > /dev/null || complain "$wheels: expected wheels, *.whl"
    "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$site" "$wheels"/*.whl || return
  fi
  [[ -z $dry ]] || "$python" -m benchmarks.rehearsal check
}

check() {
  # Run the module itself: `python -m benchmarks` needs click, which may be missing.
  "$python" -m benchmarks.requirements --device "$device" && compare --list
}

compare() {
  "$python" -m benchmarks peers --device "$device" --architecture "$architecture" \
    --work "$work/$architecture" "$@"
}

prepare() {
  compare --prepare "${passed[@]}" || return
  # A rehearsal exports for target cuda here, because nothing else does. NumPy compares the graphs with torch.
  [[ -z $dry ]] || "$python" -m sdrt export --architecture tiny --random-weights 0 --target cuda --verify --force \
    -o "$work/tiny/sdrt-cuda"
}

# A skipped test counts as a failure, because it proves nothing. The log has paths of this machine, the summary none.
test_on_gpu() {
  local log="$work/$name-tests.log" said="$results/$name-tests.txt" code
  # Run in the checkout, because pytest prints relative file names.
  (cd "$root" && "$python" -m pytest -ra -m gpu tests/gpu -p no:cacheprovider) 2>&1 | tee "$log"
  code=$?
  "$python" -m benchmarks remove-paths < "$log" > "$said" || return
  ((code)) && return "$code"
  ! grep -q '^SKIPPED' "$said"
}

measure() {
  compare --resume --json "$results/$name.json" --report "$results/$name.md" "${passed[@]}"
}

# The model folder that `prepare` made for sdrt.
model() {
  [[ $device == cpu ]] && printf '%s' "$work/$architecture/sdrt" || printf '%s' "$work/$architecture/sdrt-$device"
}

need_model() {
  [[ -f $(model)/unet/model.onnx ]] || { printf 'gpu.sh: %s: no model: run the stage prepare first\n' "$(model)" >&2; false; }
}

latency() {
  need_model || return
  local common=(--model "$(model)" --provider "$device") code
  "$python" -m sdrt benchmark "${common[@]}" --size "$sizes" --batch "$batches" --time-limit 10 --force \
    --json "$results/$name-latency.json" --plot "$results/$name-latency.png" | tee "$work/$name-latency.log"
  code=$?
  # Keep the earlier result if nothing was measured now.
  ((code)) || cp "$work/$name-latency.log" "$results/$name-latency.txt"
  "$python" -m sdrt benchmark "${common[@]}" --size "$size" --low-vram --time-limit 10 --force \
    --json "$results/$name-low-vram.json" || code=$?
  "$python" -m sdrt doctor "${common[@]}" --size "$sizes" --batch 4 > "$work/$name-doctor.log" || code=$?
  "$python" -m benchmarks remove-paths --all < "$work/$name-doctor.log" | tee "$results/$name-doctor.txt"
  local record
  for record in "$results/$name-latency.json" "$results/$name-low-vram.json"; do
    [[ ! -f $record ]] || "$python" -m benchmarks remove-paths "$record" || code=$?
  done
  return "$code"
}

profile() {
  need_model || return
  local common=(-m benchmarks kernels "$(model)" --device "$device" --size "$size")
  "$python" "${common[@]}" --json "$results/$name-kernels.json" || return
  [[ $dry ]] || "$python" "${common[@]}" --option enable_cuda_graph=true --json "$results/$name-kernels-graph.json"
}

choose() {
  need_model || return
  "$python" -m benchmarks choices "$(model)" --device "$device" --size "$size" --rounds 30 \
    --json "$results/$name-choices.json"
  local code=$? beside=()
  [[ ! -f $results/$name.json ]] || beside=(--beside "$results/$name.json")
  "$python" -m benchmarks step-graph --device "$device" --size "$size" "${beside[@]}" \
    --json "$results/$name-step.json" && return "$code"
}

for stage in "${stages[@]}"; do
  printf '\n=== %s\n' "$stage"
  start=$SECONDS
  find_libraries || complain "$python: cannot run benchmarks.libraries"
  case $stage in
    test) test_on_gpu ;;
    *) "$stage" ;;
  esac
  code=$?
  printf '=== %s: exit code %d, %d s\n' "$stage" "$code" "$((SECONDS - start))"
  ((code)) && failed=1
  # Stop if the other stages cannot work.
  [[ $code -ne 0 && $stage == @(unpack|check) ]] && break
done
exit "$failed"
