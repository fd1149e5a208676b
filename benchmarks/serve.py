"""This command measures `sdrt serve` beside the pipeline alone, on the embedded model.

    python -m benchmarks serve [--seconds 600] [--clients 64] [--steps 20] [--batch 8] [--peer]

- **start**: from the start of the process until `/readyz` says yes, five times.
- **overhead**: one client makes images one after the other. The overhead of each is its time for the client, without
  the seconds that the pipeline took in the worker.
- **cancel**: from the request that cancels a running job until the job is over, at most, of twenty.
- **load**: clients that each ask again as soon as they have an image. The images in a second are compared with those
  of the pipeline alone, with the best of some batch sizes, measured before and after. Memory is the sum over the server
  and its workers of what Linux counts as `Pss`, once a second. Its drift compares the last quarter with the second.
- **overload**: four times as many requests at once as may wait.
- **peer**: with `--peer`, `sdrt serve` and a plain loop of FastAPI over diffusers (`serve_peer.py`) have the same load
  in turn. Their models have the same architecture.

The server and its clients share the machine's cores. The pipeline alone and the peer run at other times.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.bars import judge_serve
from benchmarks.command_line import conclude, parser_of
from benchmarks.measure import device, markdown
from benchmarks.serve_load import load, overload
from benchmarks.served import PROMPT, Server, ask, launched, request_of, serving
from benchmarks.settings import say
from benchmarks.worker import environment

__all__ = ["compare", "main", "table"]

QUEUE = 64
_PEER = ("benchmarks.serve_peer",)


def compare(work: Path, options: Any) -> dict[str, Any]:
    """Measure all parts, one after the other."""
    _start(work, _command())  # writes the bytecode
    starts = [_start(work, _command()) for _ in range(options.starts)]
    say(f"start: {statistics.median(starts):.2f} s")
    alone = [_alone(options)]
    with serving(work, _command(options)) as server:
        overheads = _overheads(server, options)
        say(f"overhead: {1000 * statistics.median(overheads):.2f} ms")
        cancels = _cancels(server)
        say(f"cancelling: {1000 * statistics.median(cancels):.0f} ms")
        loaded = load(server, seconds=options.seconds, clients=options.clients, steps=options.steps)
        overloaded = overload(server, requests=4 * QUEUE, steps=options.steps)
    alone.append(_alone(options))
    best = statistics.mean(max(one.values()) for one in alone)
    figures = {
        "start_seconds": statistics.median(starts),
        "overhead_median_ms": 1000 * statistics.median(overheads),
        "overhead_p99_ms": 1000 * _quantile(overheads, 0.99),
        "cancel_ms": 1000 * max(cancels),
        "throughput": loaded["images"] / loaded["seconds"] / best,
        "lost": loaded["lost"] + overloaded["lost"],
        "memory_drift": loaded["drift"],
        "memory_bytes": loaded["memory_bytes"],
    }
    return {
        "image": f"the embedded model, {options.steps} steps",
        "figures": figures,
        "starts": starts,
        "alone_images_per_second": alone,
        "load": loaded,
        "overload": overloaded,
        "peer": _beside_peer(work, options) if options.peer else [],
        "bars": judge_serve(figures),
        "device": device(),
    }


def _command(options: Any = None) -> list[str]:
    """The arguments with which `python -m` starts `sdrt serve`."""
    command = ["sdrt", "serve", "--port", "0", "-q"]
    if options is None:
        return command
    more = {"max-queue": QUEUE, "max-batch": options.batch, "workers": options.workers}
    return command + [word for name, value in more.items() for word in (f"--{name}", str(value))]


def _start(work: Path, command: Sequence[str]) -> float:
    """Seconds from the start of a process until it is ready."""
    started = time.perf_counter()
    server = launched(work, command)
    try:
        server.wait_until_ready()
        return time.perf_counter() - started
    finally:
        server.end()


def _beside_peer(work: Path, options: Any) -> list[dict[str, Any]]:
    """Both servers under the same load, in turn: the ratio of their images, of their memory, and of their starts."""
    rounds = []
    for _ in range(options.rounds):
        turn = {}
        for name, command in (("sdrt", _command(options)), ("peer", _PEER)):
            started = time.perf_counter()
            with serving(work, command) as server:
                ready = time.perf_counter() - started
                made = load(
                    server, seconds=options.peer_seconds, clients=options.clients, steps=options.steps
                )
            turn[name] = {"start_seconds": ready, **made}
        ours, theirs = turn["sdrt"], turn["peer"]
        rounds.append(
            {
                **turn,
                "faster": ours["images"] / ours["seconds"] * theirs["seconds"] / theirs["images"],
                "memory": ours["memory_bytes"] / theirs["memory_bytes"],
                "start": ours["start_seconds"] / theirs["start_seconds"],
            }
        )
        say(f"beside diffusers: {rounds[-1]['faster']:.2f} times as many images")
    return rounds


def _overheads(server: Server, options: Any) -> list[float]:
    """For each image, the seconds that it took beside the pipeline's."""
    connection, found = server.connection(), []
    for seed in range(options.requests + 5):
        started = time.perf_counter()
        status, worked, text = ask(connection, request_of(options.steps, seed))
        taken = time.perf_counter() - started
        if status != 200 or not worked:
            raise SystemExit(f"status {status}: {text[:300]!r}")
        found.append(taken - worked)
    return found[5:]  # without the first ones, which find nothing warm


def _cancels(server: Server) -> list[float]:
    """Seconds from the request that cancels a running job until the job is over, twenty times."""
    connection, found = server.connection(), []

    def asked(method: str, path: str, body: str | None = None) -> dict[str, Any]:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        told: dict[str, Any] = json.loads(connection.getresponse().read())
        return told

    task = json.dumps({"prompt": PROMPT, "num_inference_steps": 150})
    for _ in range(20):
        job = asked("POST", "/jobs", task)["id"]
        while asked("GET", f"/jobs/{job}")["step"] < 2:
            time.sleep(0.01)
        started = time.perf_counter()
        asked("DELETE", f"/jobs/{job}")
        while asked("GET", f"/jobs/{job}")["status"] != "cancelled":
            time.sleep(0.001)
        found.append(time.perf_counter() - started)
    return found


_ALONE = """
import json, sys, time
from sdrt import StableDiffusionPipeline
from sdrt.serve.make import make
from sdrt.serve.task import ImageTask

seconds, steps, batches = float(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
pipeline, rates = StableDiffusionPipeline.from_pretrained("shapes"), {}
for batch in batches:
    settings = {"prompt": "a red circle", "num_inference_steps": steps}
    tasks = [ImageTask(model="shapes", settings={**settings, "seed": seed}) for seed in range(batch)]
    make(pipeline, tasks)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        count += len(make(pipeline, tasks))
    rates[batch] = count / (time.perf_counter() - started)
print(json.dumps(rates))
"""


def _alone(options: Any) -> dict[str, float]:
    """Images in a second of the pipeline in a process of its own, by batch size, as files as from the server."""
    command = [sys.executable, "-c", _ALONE, str(options.alone), str(options.steps), json.dumps([1, 2, 4, 8])]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **environment()}
    )
    rates: dict[str, float] = json.loads(done.stdout)
    say("alone: " + ", ".join(f"{rate:.2f} in a second at batch {batch}" for batch, rate in rates.items()))
    return rates


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(figures: Mapping[str, Any]) -> str:
    """The figures, then the goals."""
    own, load, overload = figures["figures"], figures["load"], figures["overload"]
    rows = [
        ["start until ready", f"{own['start_seconds']:.2f} s"],
        ["overhead, median", f"{own['overhead_median_ms']:.2f} ms"],
        ["overhead, 99 of 100 below", f"{own['overhead_p99_ms']:.2f} ms"],
        ["cancelling, at most", f"{own['cancel_ms']:.0f} ms"],
        ["images in a second under load", f"{load['images'] / load['seconds']:.2f}"],
        ["share of the pipeline alone at its best", f"{own['throughput']:.2f}"],
        ["memory under load", f"{own['memory_bytes'] / 1e6:.0f} MB ({own['memory_drift']:+.1%} in time)"],
        ["overload", f"{overload['asked']} asked: {overload['made']} made, {overload['refused']} refused"],
        ["without an answer", str(own["lost"])],
        *([name, _spread(figures["peer"], key)] for name, key in _BESIDE if figures["peer"]),
    ]
    return "\n".join([markdown([figures["image"], ""], rows), tables.bars(figures)])


_BESIDE = (
    ("images, as a multiple of those of FastAPI over diffusers", "faster"),
    ("memory, as a share of that server's", "memory"),
    ("start until ready, as a share of that server's", "start"),
)


def _spread(rounds: Sequence[Mapping[str, Any]], figure: str) -> str:
    values = [one[figure] for one in rounds]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("serve", __doc__)
    parser.add_argument("--work", type=Path, help="for logs; default: a temporary folder")
    parser.add_argument("--seconds", type=float, default=600.0, help="of load; default: %(default)s")
    parser.add_argument("--clients", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=200, help="for the overhead; default: %(default)s")
    parser.add_argument("--starts", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--alone", type=float, default=15.0, help="seconds for each batch size; default: %(default)s"
    )
    parser.add_argument("--batch", type=int, default=8, help="the server's --max-batch; default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="the server's; default: %(default)s")
    parser.add_argument("--peer", action="store_true", help="measure a loop over diffusers too")
    parser.add_argument("--rounds", type=int, default=3, help="of both servers; default: %(default)s")
    parser.add_argument(
        "--peer-seconds", type=float, default=30.0, help="of load for each; default: %(default)s"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("this needs Linux, which counts shared pages in /proc")
    conclude(options, lambda work: compare(work, options), table)
