"""The memory of a process: its own, which the system cannot take back, and its resident memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from sdrt.common.control_groups import ROOT, groups_of
from sdrt.common.limits import MemoryLimit

__all__ = ["Watch", "available_bytes", "own_bytes", "peak_resident", "reserved_bytes"]

_INTERVAL = 0.025


def own_bytes(pid: int | str) -> int | None:
    """Bytes in anonymous and shared pages, which the system cannot take back; None if it does not report them."""
    rows = _status(pid)
    if "RssAnon" not in rows:
        return None
    return rows["RssAnon"] + rows.get("RssShmem", 0)


def peak_resident() -> tuple[int, str] | None:
    """The peak memory of this process with mapped files, in bytes, and the source of this figure."""
    if peak := _status("self").get("VmHWM"):
        return peak, "VmHWM of /proc/self/status"
    try:
        import resource
    except ImportError:  # Windows
        return None
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale, "ru_maxrss of getrusage"


def available_bytes(root: Path = ROOT) -> int | None:
    """Bytes that a new process may take without swapping, in this machine or container; None if unknown."""
    found = [_rows(root / "proc/meminfo").get("MemAvailable"), *map(_room, groups_of("memory", root))]
    known = [amount for amount in found if amount is not None]
    return min(known, default=None)


def reserved_bytes(limit: MemoryLimit) -> int | None:
    """What this process has reserved of a limit, in bytes; None if the system does not report it."""
    return _status("self").get(limit.row)


def _room(group: Path) -> int | None:
    """Free bytes in a control group of version 2 or 1. None without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            # "max" means no limit. Cached files count as used, but the system drops them when needed.
            room = int((group / limit).read_text()) - int((group / used).read_text())
            rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            return max(0, room + sum(int(row[1]) for row in rows if row[0] == "inactive_file"))
        except (OSError, ValueError):
            continue
    return None


def _status(pid: int | str) -> dict[str, int]:
    """The sizes in /proc/PID/status, in bytes; empty if the file does not exist."""
    return _rows(Path(f"/proc/{pid}/status"))


def _rows(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}


class Watch:
    """Within this block, calls `read` forty times a second and keeps the largest value as `peak`."""

    def __init__(self, read: Callable[[], int | None]) -> None:
        self.peak: int | None = None
        self._read, self._done = read, threading.Event()
        self._thread = threading.Thread(target=self._run, name="sdrt-memory", daemon=True)

    def __enter__(self) -> Watch:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        # If the system does not report it at first, it never will.
        while self.peak is not None and not self._done.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        found = self._read()
        if found is not None:
            self.peak = max(self.peak or 0, found)
