"""This command measures `sdrt serve` beside the pipeline alone, on the embedded model.

    python -m benchmarks serve [--seconds 600] [--clients 64] [--steps 20] [--batch 8]

- **start**: from the start of the process until `/readyz` says yes, five times.
- **overhead**: one client makes images one after the other. The overhead of each is its time for the client, without
  the seconds that the pipeline took in the worker.
- **cancel**: from the request that cancels a running job until the job is over, at most, of twenty.
- **load**: clients that each ask again as soon as they have an image. The images in a second are compared with those
  of the pipeline alone, with the best of some batch sizes, measured before and after. Memory is the sum over the server
  and its workers of what Linux counts as `Pss`, once a second. Its drift compares the last quarter with the second.
- **overload**: four times as many requests at once as may wait.

The server, its clients and the pipeline alone share the machine's cores, though never two of them at a time.
"""

from __future__ import annotations

import base64
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.bars import judge_serve
from benchmarks.command_line import conclude, parser_of
from benchmarks.measure import device, markdown
from benchmarks.settings import say
from benchmarks.worker import environment

__all__ = ["compare", "main", "table"]

PROMPT, QUEUE = "a red circle", 64
_PATIENCE = 600.0
_PATH = "/v1/images/generations"


def compare(work: Path, options: Any) -> dict[str, Any]:
    """Measure all parts, one after the other."""
    starts = [_start(work) for _ in range(options.starts)]
    say(f"start: {statistics.median(starts):.2f} s")
    alone = [_alone(options)]
    with _served(work, options) as server:
        overheads = _overheads(server, options)
        say(f"overhead: {1000 * statistics.median(overheads):.2f} ms")
        cancels = _cancels(server)
        say(f"cancelling: {1000 * statistics.median(cancels):.0f} ms")
        load = _load(server, options)
        overload = _overload(server, options)
    alone.append(_alone(options))
    best = statistics.mean(max(one.values()) for one in alone)
    figures = {
        "start_seconds": statistics.median(starts),
        "overhead_median_ms": 1000 * statistics.median(overheads),
        "overhead_p99_ms": 1000 * _quantile(overheads, 0.99),
        "cancel_ms": 1000 * max(cancels),
        "throughput": load["images"] / load["seconds"] / best,
        "lost": load["lost"] + overload["lost"],
        "memory_drift": load["drift"],
        "memory_bytes": load["memory_bytes"],
    }
    return {
        "image": f"the embedded model, {options.steps} steps",
        "figures": figures,
        "starts": starts,
        "alone_images_per_second": alone,
        "load": load,
        "overload": overload,
        "bars": judge_serve(figures),
        "device": device(),
    }


class _Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    def connection(self) -> HTTPConnection:
        """A new connection."""
        return HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)

    def memory(self) -> int:
        """Bytes of the server and its workers, shared pages once."""
        tree = [self.process.pid, *_children(self.process.pid)]
        return sum(_shared(pid) for pid in tree)


@contextmanager
def _served(work: Path, options: Any) -> Iterator[_Server]:
    """A server that is ready."""
    more = ["--max-queue", str(QUEUE), "--max-batch", str(options.batch), "--workers", str(options.workers)]
    process, port = _launched(work, more)
    try:
        server = _Server(process, port)
        _until_ready(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def _launched(work: Path, more: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server, and return its process and port as soon as it says them."""
    log = work / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "sdrt", "serve", "--port", "0", "-q", *more],
            stderr=stream,
            env={**os.environ, **environment(), "SDRT_CACHE": os.fspath(work / "cache")},
        )
    while (found := re.search(r"http://127.0.0.1:(\d+)", log.read_text())) is None:
        if process.poll() is not None:
            raise SystemExit(f"the server did not start: {log.read_text()}")
        time.sleep(0.005)
    return process, int(found[1])


def _until_ready(server: _Server) -> None:
    while _get(server, "/readyz")[0] != 200:
        time.sleep(0.005)


def _get(server: _Server, path: str) -> tuple[int, bytes]:
    connection = server.connection()
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _start(work: Path) -> float:
    """Seconds from the start of a process until it is ready."""
    started = time.perf_counter()
    process, port = _launched(work, ())
    try:
        _until_ready(_Server(process, port))
        return time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(60)


def _body(options: Any, seed: int) -> str:
    return json.dumps({"prompt": PROMPT, "seed": seed, "steps": options.steps, "response_format": "b64_json"})


def _ask(connection: HTTPConnection, body: str) -> tuple[int, float, bytes]:
    """An image: the status, the seconds that its worker took, and the answer."""
    connection.request("POST", _PATH, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    found = re.search(r"worker;dur=([\d.]+)", answer.headers.get("Server-Timing", ""))
    return answer.status, float(found[1]) / 1000 if found else 0.0, text


def _overheads(server: _Server, options: Any) -> list[float]:
    """For each image, the seconds that it took beside the pipeline's."""
    connection, found = server.connection(), []
    for seed in range(options.requests + 5):
        started = time.perf_counter()
        status, worked, text = _ask(connection, _body(options, seed))
        taken = time.perf_counter() - started
        if status != 200 or not worked:
            raise SystemExit(f"status {status}: {text[:300]!r}")
        found.append(taken - worked)
    return found[5:]  # without the first ones, which find nothing warm


def _cancels(server: _Server) -> list[float]:
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


def _load(server: _Server, options: Any) -> dict[str, Any]:
    """Clients that ask again and again."""
    end, counts, done = time.perf_counter() + options.seconds, Counter[str](), threading.Event()
    sizes: list[int] = []

    def watch() -> None:
        while not done.wait(1.0):
            sizes.append(server.memory())

    def ask(number: int) -> None:
        connection, asked = server.connection(), 0
        while time.perf_counter() < end:
            status, text = _answer(connection, _body(options, number * 1000 + asked))
            asked += 1
            counts[status] += 1
            if status == "made" and not _is_png(text):
                counts["lost"] += 1
            elif status == "refused":
                time.sleep(0.05)

    started = time.perf_counter()
    watching = threading.Thread(target=watch)
    watching.start()
    _in_threads(ask, options.clients)
    seconds = time.perf_counter() - started
    done.set()
    watching.join()
    say(f"load: {counts['made'] / seconds:.2f} images in a second")
    return {
        "seconds": seconds,
        "images": counts["made"],
        "refused": counts["refused"],
        "lost": counts["lost"],
        "memory_bytes": max(sizes, default=0),
        "drift": _drift(sizes),
    }


def _overload(server: _Server, options: Any) -> dict[str, Any]:
    """Four times as many requests as may wait, at once."""
    counts = Counter[str]()

    def ask(number: int) -> None:
        status, _ = _answer(server.connection(), _body(options, number))
        counts[status] += 1

    _in_threads(ask, 4 * QUEUE)
    return {"asked": 4 * QUEUE, "made": counts["made"], "refused": counts["refused"], "lost": counts["lost"]}


def _answer(connection: HTTPConnection, body: str) -> tuple[str, bytes]:
    try:
        status, _, text = _ask(connection, body)
    except OSError:
        return "lost", b""
    return {200: "made", 429: "refused"}.get(status, "lost"), text


def _is_png(text: bytes) -> bool:
    return base64.b64decode(json.loads(text)["data"][0]["b64_json"]).startswith(b"\x89PNG")


def _in_threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def _drift(sizes: Sequence[int]) -> float:
    """How much more memory the last quarter takes than the second, as a share."""
    quarter = len(sizes) // 4
    if not quarter:
        return 0.0
    before, after = statistics.mean(sizes[quarter : 2 * quarter]), statistics.mean(sizes[-quarter:])
    return after / before - 1


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


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _shared(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


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
    ]
    return "\n".join([markdown([figures["image"], ""], rows), tables.bars(figures)])


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
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("this needs Linux, which counts shared pages in /proc")
    conclude(options, lambda work: compare(work, options), table)
