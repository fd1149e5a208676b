"""Run a command as a whole process: wall time, and the peak of its memory and its children's together.

Memory is counted twice. *Own* memory is what the kernel cannot take back (anonymous and shared pages): too much of it
and a process is killed. *Resident* memory adds the pages of mapped files, such as weights, that are in memory just now
and are dropped when another needs the room.
"""

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
    own_bytes: int
    resident_bytes: int
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
    return Run(seconds=seconds, own_bytes=watch.own, resident_bytes=watch.resident, result=result)


class _PeakMemory(threading.Thread):
    """Samples the memory of a process tree."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.own = self.resident = 0
        self._root = psutil.Process(pid)
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(_INTERVAL):
            sizes = [_sizes(process) for process in self._tree()]
            self.own = max(self.own, sum(own for own, _ in sizes))
            self.resident = max(self.resident, sum(resident for _, resident in sizes))

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _sizes(process: psutil.Process) -> tuple[int, int]:
    """Own and resident bytes; both resident where the system does not tell them apart."""
    try:
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            resident = process.memory_info().rss
            return resident, resident
        rows = dict(line.split(":", 1) for line in status.read_text().splitlines() if line.startswith("Rss"))
    except (psutil.NoSuchProcess, OSError):
        return 0, 0
    kilobytes = {key: int(value.split()[0]) for key, value in rows.items()}
    own = kilobytes.get("RssAnon", 0) + kilobytes.get("RssShmem", 0)
    return own * 1024, (own + kilobytes.get("RssFile", 0)) * 1024


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
