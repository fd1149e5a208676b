"""Runs a command as a process, and measures its time and the peak memory of it and its children together.

CPU time is the kernel's count for the process and for those of its children that it waited for. *Own* memory is what
the kernel cannot take back: `RssAnon` and `RssShmem` in `/proc/PID/status`, every 20 ms. With too much of it, a process
is killed. (`Private_Clean` of `smaps_rollup` also counts mapped files that no other process has mapped.) *Resident*
memory adds pages of mapped files, such as weights, which the kernel drops when it needs memory. *Device* memory is the
peak of all programs on the GPU, minus what they used before. It is measured from outside, in the same way for every
system. NVIDIA's library reports it in microseconds. Without `nvidia-ml-py`, one `nvidia-smi` reports it twice a second,
and misses shorter peaks.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sdrt.benchmark import nvidia

__all__ = [
    "Failed",
    "Killed",
    "PeakMemory",
    "Run",
    "device",
    "markdown",
    "run",
    "spread",
    "touch_free_memory",
]

_INTERVAL = 0.02
# `nvidia-smi` asks the driver for much more than one number. More often, it would disturb the measurement.
_COMMAND_MILLISECONDS = 500


class Failed(SystemExit):
    """A command failed. The message is one line with the reason. If nobody catches it, the benchmark ends with it."""


class Killed(Failed):
    """A command was ended by a timeout or a signal. Files that it was writing may be incomplete."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished process.

    Attributes:
        cpu_seconds: CPU time, of which the kernel took `system_seconds`.
        result: the JSON object on the last line of its stdout, or empty.
    """

    seconds: float
    cpu_seconds: float
    system_seconds: float
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
    """Run `command`, with `environment` added to ours. Its output goes to `log`.

    Raises `Failed`, or `Killed` after `timeout` seconds or a signal.
    """
    with log.open("a+", encoding="utf-8", errors="replace") as stream, nvidia.library():
        stream.write(f"$ {_shown(command)}\n")
        stream.flush()
        watch = PeakMemory(_device() if gpu else None)
        start, (user, system) = time.perf_counter(), _cpu_seconds()
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
            output = _output(process, timeout)
        finally:
            seconds = time.perf_counter() - start
            watch.stop()
        stream.write(output)
    if process.returncode:
        kind = Killed if process.returncode < 0 else Failed
        raise kind(f"exit code {process.returncode}: {_reason(log)} (more in {log.name})")
    user, system = (after - before for after, before in zip(_cpu_seconds(), (user, system), strict=True))
    return Run(
        seconds=seconds,
        cpu_seconds=user + system,
        system_seconds=system,
        own_bytes=watch.own,
        resident_bytes=watch.resident,
        device_bytes=watch.device,
        result=_result(output),
    )


def _output(process: subprocess.Popen[str], timeout: float | None) -> str:
    """What the process writes to stdout. A process that takes too long is killed, and so it is after Ctrl-C."""
    try:
        return process.communicate(timeout=timeout)[0]
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Killed(f"took longer than {timeout:g} s") from None
        raise


def _cpu_seconds() -> tuple[float, float]:
    """The CPU time of all children that have ended: in user mode and in the kernel."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime, used.ru_stime


def make_ready(files: Iterable[Path]) -> None:
    """Read `files` into the page cache, and touch the free memory, so that no turn pays for another one's work."""
    for path in files:
        with path.open("rb") as stream:
            while stream.read(1 << 24):
                pass
    touch_free_memory()


def touch_free_memory() -> None:
    """Write to most of the free memory, and free it again. Does nothing without Linux's `/proc/meminfo`.

    The host of a virtual machine takes free memory back, and provides it again at the first write to a page. This
    counts as CPU time of the process that writes: 0.5 s to 5 s for a file of 2 GB, with any exporter.
    """
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return
    (kibibytes,) = re.findall(r"MemFree:\s+(\d+) kB", text)
    size = int(kibibytes) * 1024 * 9 // 10
    if size < mmap.PAGESIZE:
        return
    with mmap.mmap(-1, size) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1


def _result(output: str) -> dict[str, Any]:
    """The JSON object on the last line of `output`; empty if there is none."""
    last = output.strip().rpartition("\n")[2]
    return json.loads(last) if last.startswith("{") else {}


def _shown(command: Sequence[str | Path]) -> str:
    """The command on one line, with "…" for arguments that are scripts."""
    return " ".join("…" if "\n" in str(part) else str(part) for part in command)


_FRAME = re.compile(r"^(\s|\$ )|^Traceback|^For further information")


def _reason(log: Path) -> str:
    """The last line of the log that is not a traceback frame: Python's error, or the command's last output."""
    lines = log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2].splitlines()[1:]
    said = [line for line in lines if line.strip() and not _FRAME.match(line)]
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception|error)\b.*:", line)]
    return (errors or said or ["it printed nothing"])[-1].strip()[:200]


class _Library:
    """Device memory from NVIDIA's library."""

    def used(self) -> int:
        """Bytes that all programs use now."""
        return nvidia.used_bytes(0) or 0

    def close(self) -> None:
        """There is nothing to close."""


class _Command:
    """Device memory from one `nvidia-smi`, which runs until this is closed."""

    def __init__(self) -> None:
        repeat = ["-lms", str(_COMMAND_MILLISECONDS)]
        self._process = subprocess.Popen([*_query("memory.used"), *repeat], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._lines = iter(self._process.stdout)
        self._told = [int(next(self._lines).split()[0]) << 20]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def used(self) -> int:
        """The most bytes that all programs used since the last call."""
        highest = max(self._told)
        del self._told[:-1]
        return highest

    def close(self) -> None:
        """End the command."""
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
    """The `nvidia-smi` command that asks about the first visible GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    return ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "-i", visible]


def _device() -> _Library | _Command | None:
    """The source of the GPU's memory; None if there is none."""
    if nvidia.used_bytes(0) is not None:
        return _Library()
    try:
        return _Command()
    except (OSError, StopIteration, ValueError, IndexError):
        return None


class PeakMemory(threading.Thread):
    """Samples the memory of a process tree, and of the GPU from `device`, minus what was used there at first."""

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
            sizes = [_sizes(process) for process in _tree(self._root)]
            self.own = max(self.own, sum(own for own, _ in sizes))
            self.resident = max(self.resident, sum(resident for _, resident in sizes))
            if self._device is not None:
                self.device = max(self.device or 0, self._device.used() - self._before)

    def stop(self) -> None:
        self._done.set()
        self.join()
        if self._device is not None:
            self._device.close()


def _tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all below it. Empty if it has ended."""
    try:
        return _told_tree(root) or [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _told_tree(root: psutil.Process) -> list[psutil.Process]:
    """The same from files of Linux. Empty without them.

    psutil's own way looks at all processes of the machine. It takes 3 ms, and would slow down what is measured.
    """
    found = [root]
    for process in found:
        try:
            lists = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")]
        except OSError:  # a thread or the process has ended meanwhile
            continue
        if not lists:
            return []
        for pid in " ".join(lists).split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
    return found


def _sizes(process: psutil.Process) -> tuple[int, int]:
    """Own and resident bytes. Both are the resident size if the system does not distinguish them."""
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
    """The machine, for readers of the figures."""
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
    """Like `nvidia.gpus`, for the first visible GPU, from `nvidia-smi`; empty without that command."""
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
