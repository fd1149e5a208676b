"""A server as a user starts it: `sdrt serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

__all__ = ["Running", "serving"]

_PATIENCE = 120  # seconds for a slow machine


@dataclass(frozen=True)
class Running:
    """A server that listens, and its process."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def client(self, key: str | None = None) -> httpx.Client:
        """A client of the server."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=_PATIENCE)

    def workers(self) -> list[int]:
        """The processes that make images."""
        return [one.pid for one in psutil.Process(self.process.pid).children() if _is_worker(one)]

    def wait_until_ready(self) -> None:
        """Wait until a worker takes jobs."""
        with self.client() as client:
            wait_for(lambda: client.get("/readyz").status_code == 200)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def wait_for(happens: object) -> None:
    """Wait until `happens()` is true."""
    assert callable(happens)
    end = time.monotonic() + _PATIENCE
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@contextmanager
def serving(folder: Path, *arguments: str, ready: bool = True, **variables: str) -> Iterator[Running]:
    """A server with these arguments on a free port, which is ended at the end."""
    log = folder / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sdrt", "serve", "--port", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            text=True,
            env={**os.environ, "SDRT_CACHE": str(folder / "cache"), **variables},
            cwd=folder,
        )
    try:
        running = Running(_address(log, process), process, log)
        if ready:
            running.wait_until_ready()
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(_PATIENCE)
        finally:
            process.kill()


def _address(log: Path, process: subprocess.Popen[str]) -> str:
    found: re.Match[str] | None = None

    def is_there() -> bool:
        nonlocal found
        assert process.poll() is None, log.read_text()
        found = re.search(r"http://\S+", log.read_text())
        return found is not None

    wait_for(is_there)
    assert found is not None
    return found[0]
