"""Run a command as a whole process: wall time, and the peak of its memory and its children's together."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Run", "device", "markdown", "run", "spread"]

_INTERVAL = 0.02


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished process. ``result`` is the JSON object on the last line of its standard output, if any."""

    seconds: float
    peak_bytes: int
    result: dict[str, Any]


def run(command: Sequence[str | Path], log: Path) -> Run:
    """Run ``command``; its stderr and other output go to ``log``. A failing command ends the benchmark."""
    start = time.perf_counter()
    with log.open("a", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=stream, text=True
        )
        watch = _PeakMemory(process.pid)
        watch.start()
        output, _ = process.communicate()
        seconds = time.perf_counter() - start
        watch.stop()
        stream.write(output)
    if process.returncode:
        sys.exit(f"{command} failed with {process.returncode}; see {log}")
    last = output.strip().rpartition("\n")[2]
    result = json.loads(last) if last.startswith("{") else {}
    return Run(seconds=seconds, peak_bytes=watch.peak, result=result)


class _PeakMemory(threading.Thread):
    """Samples the resident memory of a process tree. Files mapped by a process count as its memory."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._root = psutil.Process(pid)
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(_INTERVAL):
            self.peak = max(self.peak, self._resident())

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _resident(self) -> int:
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        total = 0
        for process in tree:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def device() -> dict[str, Any]:
    """What a reader needs to place the figures."""
    name = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        rows = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        name = rows[0] if rows else name
    return {
        "cpu": name,
        "logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "platform": sys.platform,
        "python": sys.version.split()[0],
    }


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
