#!/usr/bin/env bash
# Ray Data 2.60: `max_errored_blocks` does not count a block whose actor's process ends, and tries it again for ever.
#
# One would expect: with `DataContext.max_errored_blocks = -1` ("any number"), a row that ends the process of each actor
# that gets it (out of memory, a fault of native code) is an errored block, and the run goes on without it, as it does for a
# row that raises an exception.
# What happens: the exception is left out after one try. The process that ends is tried again without end, while all other
# blocks are done, so the run never ends. With `max_task_retries` set to 1 by `ray_remote_args_fn`, the block counts as
# errored after two tries, and the run ends.
#
# Exits with 1 when the behaviour changes. Ray listens on all addresses of this machine meanwhile, with a token.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "ray[data]==2.60.0" 2>/dev/null
export RAY_TMPDIR=$work RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
cat > "$work/run.py" <<'PY'
import logging
import os
import sys
import threading

import pyarrow as pa
import ray
import ray.data

how, tries = sys.argv[1], sys.argv[2]


class Square:
    def __call__(self, batch):
        if batch["number"][0].as_py() == 3:
            with open(tries, "a") as file:
                file.write("x")
            if how == "raises":
                raise ValueError("three")
            os._exit(7)
        return pa.table({"number": batch["number"]})


def end():
    print("never ends", flush=True)
    ray.shutdown()
    os._exit(0)


ray.init(
    address="local", num_cpus=3, object_store_memory=10**8, include_dashboard=False, log_to_driver=False,
    logging_level=logging.ERROR,
)
context = ray.data.DataContext.get_current()
context.enable_progress_bars, context.max_errored_blocks = False, -1
retries = {"ray_remote_args_fn": lambda: {"max_restarts": -1, "max_task_retries": 1}} if how == "once more" else {}
numbers = ray.data.from_items([{"number": number} for number in range(8)], override_num_blocks=8).map_batches(
    Square, batch_size=1, batch_format="pyarrow", num_cpus=1,
    compute=ray.data.ActorPoolStrategy(size=2, max_tasks_in_flight_per_actor=1), **retries,
)
threading.Timer(25, end).start()
found = sorted(row["number"] for row in numbers.take_all())
print(f"ends with {found}", flush=True)
ray.shutdown()
os._exit(0)
PY
failed=0
for how in raises ends "once more"; do
  "$work/venv/bin/python" -W ignore "$work/run.py" "$how" "$work/tries-$how" > "$work/said" 2> /dev/null
  said=$(grep -E "^(ends with|never)" "$work/said") count=$(wc -c < "$work/tries-$how")
  echo "$how: $said, after $count tries"
  case "$how:$said" in
    "raises:ends with [0, 1, 2, 4, 5, 6, 7]" | "once more:ends with [0, 1, 2, 4, 5, 6, 7]") [ "$count" -le 2 ] || failed=1 ;;
    "ends:never ends") [ "$count" -gt 3 ] || failed=1 ;;
    *) failed=1 ;;
  esac
done
exit "$failed"
