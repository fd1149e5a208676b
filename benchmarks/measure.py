"""Run a command as a whole process: wall time, and the peak of its memory and its children's together.

Memory is counted twice. *Own* memory is what the kernel cannot take back (anonymous and shared pages): too much of it
and a process is killed. *Resident* memory adds the pages of mapped files, such as weights, that are in memory just now
and are dropped when another needs the room. *Device* memory is what all programs together use on the GPU at the
highest, less what they used before: seen from outside, so that it counts the same for every system. NVIDIA's library
tells it in microseconds; without `nvidia-ml-py` one `nvidia-smi` runs beside and tells it twice a second, which misses
shorter peaks.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sdrt.benchmark import nvidia

__all__ = ["Failed", "Killed", "PeakMemory", "Run", "device", "markdown", "run", "spread"]

_INTERVAL = 0.02
# `nvidia-smi` asks the driver for much more than one number: more often it would be felt in what is measured.
_COMMAND_MILLISECONDS = 500


class Failed(SystemExit):
    """A command that failed: why, in a line. Where nobody catches it, the benchmark ends with that line."""


class Killed(Failed):
    """A command that did not end by itself: out of time, or by a signal. What it was writing may be half."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished process. ``result`` is the JSON object on the last line of its standard output, if any."""

    seconds: float
    own_bytes: int
    resident_bytes: int
    device_bytes: int | None
    result: dict[str, Any]


def run(
    command: Sequence[str | Path],
    log: Path,
    *,
    timeout: float | None = None,
    gpu: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run `command`; its stderr and other output go to `log`.

    `environment` is added to ours. Raises `Failed`, and `Killed` after `timeout` seconds or a signal.
    """
    with log.open("a+", encoding="utf-8", errors="replace") as stream, nvidia.library():
        stream.write(f"$ {_shown(command)}\n")
        stream.flush()
        watch = PeakMemory(_device() if gpu else None)
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        watch.begin(process.pid)
        try:
            output, _ = process.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Killed(f"took longer than {timeout:g} s") from None
            raise
        finally:
            seconds = time.perf_counter() - start
            watch.stop()
        stream.write(output)
    if process.returncode:
        kind = Killed if process.returncode < 0 else Failed
        raise kind(f"exit code {process.returncode}: {_reason(log)} (more in {log.name})")
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


class _Library:
    """The device's memory, asked of NVIDIA's library."""

    def used(self) -> int:
        """Bytes that all programs use just now."""
        return nvidia.used_bytes(0) or 0

    def close(self) -> None:
        """Nothing is left open."""


class _Command:
    """The same, told by one `nvidia-smi` for as long as this is open; the highest since it was asked last."""

    def __init__(self) -> None:
        repeat = ["-lms", str(_COMMAND_MILLISECONDS)]
        self._process = subprocess.Popen([*_query("memory.used"), *repeat], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._lines = iter(self._process.stdout)
        self._told = [int(next(self._lines).split()[0]) << 20]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def used(self) -> int:
        """Bytes that all programs used at most since the last time."""
        highest = max(self._told)
        del self._told[:-1]
        return highest

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._lines:
            if number := line.split()[:1]:
                self._told.append(int(number[0]) << 20)


def _query(what: str) -> list[str]:
    """The command that tells of the first GPU that is visible."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    return ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "-i", visible]


def _device() -> _Library | _Command | None:
    """What tells of the GPU's memory; None where nothing does."""
    if nvidia.used_bytes(0) is not None:
        return _Library()
    try:
        return _Command()
    except (OSError, StopIteration, ValueError, IndexError):
        return None


class PeakMemory(threading.Thread):
    """Samples the memory of a process tree, and of the GPU as `device` tells it, above what was used there at first."""

    def __init__(self, device: _Library | _Command | None) -> None:
        super().__init__(daemon=True)
        self.own = self.resident = 0
        self.device = None if device is None else 0
        self._device, self._done = device, threading.Event()
        self._before = 0 if device is None else device.used()

    def begin(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self.start()

    def run(self) -> None:
        while not self._done.wait(_INTERVAL):
            sizes = [_sizes(process) for process in self._tree()]
            self.own = max(self.own, sum(own for own, _ in sizes))
            self.resident = max(self.resident, sum(resident for _, resident in sizes))
            if self._device is not None:
                self.device = max(self.device or 0, self._device.used() - self._before)

    def stop(self) -> None:
        self._done.set()
        self.join()
        if self._device is not None:
            self._device.close()

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
        "gpus": nvidia.gpus() or _gpus(),
        "platform": sys.platform,
        "python": sys.version.split()[0],
    }


def _gpus() -> list[dict[str, Any]]:
    """As `nvidia.gpus`, of the first one that is visible, by `nvidia-smi`; none where there is no such command."""
    try:
        told = subprocess.run(
            _query("name,memory.total,driver_version"), capture_output=True, text=True, check=True
        )
        name, mebibytes, driver = (part.strip() for part in told.stdout.splitlines()[0].split(","))
        return [{"name": name, "memory_bytes": int(mebibytes) << 20, "driver": driver}]
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return []


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
