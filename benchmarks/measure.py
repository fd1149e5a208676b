"""Run a command as a whole process: wall time, and the peak of its memory and its children's together.

Memory is counted twice. *Own* memory is what the kernel cannot take back (anonymous and shared pages): too much of it
and a process is killed. *Resident* memory adds the pages of mapped files, such as weights, that are in memory just now
and are dropped when another needs the room. *Device* memory is what all programs together use on the GPU at the
highest, less what they used before: seen from outside, so that it counts the same for every system.
"""

from __future__ import annotations

import json
import os
import re
import signal
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

from sdrt.benchmark import nvidia

__all__ = ["Failed", "PeakMemory", "Run", "device", "markdown", "run", "spread"]

_INTERVAL = 0.02


class Failed(SystemExit):
    """A command that failed: why, in a line. Where nobody catches it, the benchmark ends with that line."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished process. ``result`` is the JSON object on the last line of its standard output, if any."""

    seconds: float
    own_bytes: int
    resident_bytes: int
    device_bytes: int | None
    result: dict[str, Any]


def run(command: Sequence[str | Path], log: Path, *, timeout: float | None = None, gpu: bool = False) -> Run:
    """Run `command`; its stderr and other output go to `log`. Raises `Failed`, also after `timeout` seconds."""
    with log.open("a+", encoding="utf-8", errors="replace") as stream, nvidia.library():
        stream.write(f"$ {_shown(command)}\n")
        stream.flush()
        watch = PeakMemory(_device_bytes() if gpu else None)
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            start_new_session=True,
        )
        watch.begin(process.pid)
        try:
            output, _ = process.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"took longer than {timeout:g} s") from None
            raise
        finally:
            seconds = time.perf_counter() - start
            watch.stop()
        stream.write(output)
    if process.returncode:
        raise Failed(f"exit code {process.returncode}: {_reason(log)} (more in {log.name})")
    last = output.strip().rpartition("\n")[2]
    result = json.loads(last) if last.startswith("{") else {}
    return Run(
        seconds=seconds,
        own_bytes=watch.own,
        resident_bytes=watch.resident,
        device_bytes=watch.device,
        result=result,
    )


def _shown(command: Sequence[str | Path]) -> str:
    """A command in one line; a script that is given as text is left out."""
    return " ".join("…" if "\n" in str(part) else str(part) for part in command)


_FRAME = re.compile(r"^(\s|\$ )|^Traceback|^For further information")


def _reason(log: Path) -> str:
    """The last line that is no part of a traceback's frames: what Python raised, or what a command said."""
    lines = log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2].splitlines()[1:]
    said = [line for line in lines if line.strip() and not _FRAME.match(line)]
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception|error)\b.*:", line)]
    return (errors or said or ["it said nothing"])[-1].strip()[:200]


def _device_bytes() -> int | None:
    """What all programs use on the first GPU that is visible; asked of NVIDIA's library, or of its command."""
    used = nvidia.used_bytes(0)
    return _asked_of_command() if used is None else used


def _asked_of_command() -> int | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", visible]
    try:
        return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]) << 20
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


class PeakMemory(threading.Thread):
    """Samples the memory of a process tree, and of the GPU where `before` says what was used there at first."""

    def __init__(self, before: int | None) -> None:
        super().__init__(daemon=True)
        self.own = self.resident = 0
        self.device = None if before is None else 0
        self._before, self._done = before, threading.Event()

    def begin(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self.start()

    def run(self) -> None:
        while not self._done.wait(_INTERVAL):
            sizes = [_sizes(process) for process in self._tree()]
            self.own = max(self.own, sum(own for own, _ in sizes))
            self.resident = max(self.resident, sum(resident for _, resident in sizes))
            if self._before is not None and (used := _device_bytes()) is not None:
                self.device = max(self.device or 0, used - self._before)

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
        "gpus": nvidia.gpus(),
        "platform": sys.platform,
        "python": sys.version.split()[0],
    }


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
