"""Many clients of a server at once."""

from __future__ import annotations

import base64
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any

from benchmarks.served import Server, ask, request_of
from benchmarks.settings import say

__all__ = ["load", "overload"]


def load(server: Server, *, seconds: float, clients: int, steps: int) -> dict[str, Any]:
    """Clients that ask again and again."""
    end, counts, done = time.perf_counter() + seconds, Counter[str](), threading.Event()
    sizes: list[int] = []

    def watch() -> None:
        while not done.wait(1.0):
            sizes.append(server.memory())

    def work(number: int) -> None:
        connection, asked = server.connection(), 0
        while time.perf_counter() < end:
            status = _answer(connection, request_of(steps, number * 1000 + asked))
            asked += 1
            counts[status] += 1
            if status == "refused":
                time.sleep(0.05)

    started = time.perf_counter()
    watching = threading.Thread(target=watch)
    watching.start()
    _in_threads(work, clients)
    taken = time.perf_counter() - started
    done.set()
    watching.join()
    say(f"load: {counts['made'] / taken:.2f} images in a second")
    return {
        "seconds": taken,
        "images": counts["made"],
        "refused": counts["refused"],
        "lost": counts["lost"],
        "memory_bytes": max(sizes, default=0),
        "drift": _drift(sizes),
    }


def overload(server: Server, *, requests: int, steps: int) -> dict[str, Any]:
    """This many requests at once."""
    counts = Counter[str]()

    def work(number: int) -> None:
        counts[_answer(server.connection(), request_of(steps, number))] += 1

    _in_threads(work, requests)
    return {"asked": requests, "made": counts["made"], "refused": counts["refused"], "lost": counts["lost"]}


def _answer(connection: HTTPConnection, body: str) -> str:
    try:
        status, _, text = ask(connection, body)
        made = {200: "made", 429: "refused"}.get(status, "lost")
        return "lost" if made == "made" and not _is_png(text) else made
    except (OSError, HTTPException, ValueError, LookupError):
        connection.close()
        return "lost"


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
