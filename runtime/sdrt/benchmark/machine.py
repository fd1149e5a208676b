"""The measured machine: its hardware, its clocks, and the other programs on it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from sdrt.benchmark.nvidia import gpu_clocks, gpus

__all__ = ["BUSY", "Others", "clocks", "facts", "load_average"]

BUSY = 0.1
"""If other programs use more than this share of the processors, the figures are not reliable."""

_CPU = Path("/sys/devices/system/cpu")
_VERSIONED = (
    "sdrt",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "tokenizers",
    "pillow",
)
_ENVIRONMENT = ("ORT_", "OMP_", "OPENBLAS_", "MKL_", "CUDA_", "NVIDIA_", "TF32", "MALLOC_", "LD_PRELOAD")


def facts() -> dict[str, Any]:
    """What the figures depend on besides the settings. Values that the system does not report are None."""
    return {
        "cpu": _cpu_name(),
        "logical_cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "cgroup_cpu_limit": _read("/sys/fs/cgroup/cpu.max"),
        "governor": _read(_CPU / "cpu0" / "cpufreq" / "scaling_governor"),
        "memory_bytes": _memory(),
        "gpus": gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(_ENVIRONMENT)
        },
    }


def clocks() -> dict[str, Any]:
    """The current clocks of the processors and the GPUs, in MHz; empty if the system does not report them."""
    return {"cpu_mhz": _cpu_mhz(), "gpus": gpu_clocks()}


def load_average() -> list[float] | None:
    """The load averages over 1, 5 and 15 minutes; None on Windows."""
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


class Others:
    """The processor time that other programs, and the host of a virtual machine, take from now on."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.perf_counter(), _busy_seconds(), time.process_time()

    def share(self) -> float | None:
        """Their share of all processors, from 0 to 1; None if the system does not report it."""
        busy, seconds = _busy_seconds(), time.perf_counter() - self._began
        if busy is None or self._busy is None or seconds <= 0:
            return None
        taken = busy - self._busy - (time.process_time() - self._own)
        return min(max(taken / seconds / (os.cpu_count() or 1), 0.0), 1.0)


def _busy_seconds() -> float | None:
    """Seconds that the processors were busy since the machine started, all added up."""
    line = (_read("/proc/stat") or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _cpu_name() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def _cpu_mhz() -> list[float]:
    files = sorted(_CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if found := [float(text) / 1000 for file in files if (text := _read(file))]:
        return found
    lines = (_read("/proc/cpuinfo") or "").splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows; a system without the name
        return None


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
