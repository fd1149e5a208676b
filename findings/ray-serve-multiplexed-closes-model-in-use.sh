#!/usr/bin/env bash
# Ray Serve 2.60: a multiplexed model is closed while a request still uses it, and closed once more afterwards.
#
# One would expect: when a replica has `max_num_models_per_replica` models open and gets a request for another one, it lets
# go of the model that was used longest ago. When the last request that uses that model is over, Python calls `__del__`, which
# frees what the model holds.
# What happens: Ray calls `__del__` at once, in the middle of a request that uses the model. That request keeps a reference, so
# Python calls `__del__` again when the request ends. Ray sets `__del__` of the instance to a function that does nothing, but
# Python calls that of the class. With `max_ongoing_requests=1` no request is interrupted, but `__del__` is still called twice.
#
# Exits with 1 when the behaviour changes. Ray listens on all addresses of this machine meanwhile, with a token.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "ray[serve]==2.60.0" 2>/dev/null
export RAY_TMPDIR=$work RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
cat > "$work/run.py" <<'PY'
import asyncio
import logging
import os
import sys

import ray
from ray import serve


class Model:
    def __init__(self, name, log):
        self.name, self.log, self.is_open = name, log, True

    def __del__(self):
        self.is_open = False
        with open(self.log, "a") as file:
            file.write(f"{self.name}\n")


class Models:
    def __init__(self, log):
        async def opened(name):
            return Model(name, log)

        self.model = serve.multiplexed(opened, max_num_models_per_replica=1)

    async def use(self, name, seconds):
        model = await self.model(name)
        await asyncio.sleep(seconds)
        return model.is_open


async def ask(handle):
    first = handle.options(multiplexed_model_id="a").use.remote("a", 4)
    await asyncio.sleep(1)
    await handle.options(multiplexed_model_id="b").use.remote("b", 0)
    return await first


most, log = int(sys.argv[1]), sys.argv[2]
ray.init(
    address="local", num_cpus=2, object_store_memory=10**8, include_dashboard=False, log_to_driver=False,
    logging_level=logging.ERROR,
)
serve.start(proxy_location="Disabled")
handle = serve.run(serve.deployment(Models, max_ongoing_requests=most).bind(log), route_prefix=None)
is_open = asyncio.run(ask(handle))
with open(log) as file:
    calls = file.read().split().count("a")
print(f"open at the end of its request: {is_open}, closed {calls} times", flush=True)
ray.shutdown()
os._exit(0)
PY
failed=0
for most in 2 1; do
  "$work/venv/bin/python" -W ignore "$work/run.py" "$most" "$work/log-$most" > "$work/said" 2> /dev/null
  said=$(grep -E "^open at" "$work/said")
  echo "max_ongoing_requests=$most: $said"
  case "$most:$said" in
    "2:open at the end of its request: False, closed 2 times") ;;
    "1:open at the end of its request: True, closed 2 times") ;;
    *) failed=1 ;;
  esac
done
exit "$failed"
