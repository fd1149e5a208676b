"""A server that is measured: its process, its answers, and its memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.worker import environment

__all__ = ["Server", "ask", "launched", "request_of", "serving"]

PROMPT = "a red circle"
_PATIENCE = 600.0  # seconds
_PATH = "/v1/images/generations"


class Server:
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

    def wait_until_ready(self) -> None:
        """Wait until `/readyz` says yes."""
        while self._status("/readyz") != 200:
            time.sleep(0.005)

    def end(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()

    def _status(self, path: str) -> int:
        connection = self.connection()
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()


def launched(work: Path, command: Sequence[str]) -> Server:
    """Start a server with `python -m COMMAND`, and return it as soon as it says its address."""
    log = work / "server.log"
    # Bytecode is written, as pip does when it installs a package.
    variables = {**os.environ, **environment(), "SDRT_CACHE": os.fspath(work / "cache")}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", *command], stderr=stream, env=variables)
    while (found := re.search(r"http://127.0.0.1:(\d+)", log.read_text())) is None:
        if process.poll() is not None:
            raise SystemExit(f"the server did not start: {log.read_text()}")
        time.sleep(0.005)
    return Server(process, int(found[1]))


@contextmanager
def serving(work: Path, command: Sequence[str]) -> Iterator[Server]:
    """A server that is ready. It ends with the block."""
    server = launched(work, command)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.end()


def request_of(steps: int, seed: int) -> str:
    """A request for an image, for OpenAI's API."""
    return json.dumps({"prompt": PROMPT, "seed": seed, "steps": steps, "response_format": "b64_json"})


def ask(connection: HTTPConnection, body: str) -> tuple[int, float, bytes]:
    """An image: the status, the seconds that its worker took, and the answer."""
    connection.request("POST", _PATH, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    found = re.search(r"worker;dur=([\d.]+)", answer.headers.get("Server-Timing", ""))
    return answer.status, float(found[1]) / 1000 if found else 0.0, text


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
