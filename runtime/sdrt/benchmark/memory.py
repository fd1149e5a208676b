"""The memory of a process: what the system cannot take back, and what is resident."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["Watch", "available_bytes", "own_bytes", "peak_resident"]

_INTERVAL = 0.025


def own_bytes(pid: int | str) -> int | None:
    """Bytes that the system cannot take back, anonymous and shared pages; None where the system does not tell."""
    rows = _status(pid)
    if "RssAnon" not in rows:
        return None
    return rows["RssAnon"] + rows.get("RssShmem", 0)


def peak_resident() -> tuple[int, str] | None:
    """The most that this process had in memory, mapped files too, in bytes; and whose figure it is."""
    if peak := _status("self").get("VmHWM"):
        return peak, "VmHWM of /proc/self/status"
    try:
        import resource
    except ImportError:  # Windows
        return None
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale, "ru_maxrss of getrusage"


def available_bytes(root: Path = Path("/")) -> int | None:
    """What a new process may take without swapping, of the machine and of its container; None where nothing tells."""
    found = [_rows(root / "proc/meminfo").get("MemAvailable"), _container(root / "sys/fs/cgroup")]
    known = [amount for amount in found if amount is not None]
    return min(known, default=None)


def _container(groups: Path) -> int | None:
    """Of the control group that the process is in, as it sees it: version 2, then version 1."""
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            # "max" is no limit; files that were read lately are counted as used, and give way.
            room = int((groups / limit).read_text()) - int((groups / used).read_text())
            rows = (line.split() for line in (groups / stat).read_text().splitlines())
            return max(0, room + sum(int(row[1]) for row in rows if row[0] == "inactive_file"))
        except (OSError, ValueError):
            continue
    return None


def _status(pid: int | str) -> dict[str, int]:
    """The lines of /proc/PID/status that are sizes, in bytes; empty where there is no such file."""
    return _rows(Path(f"/proc/{pid}/status"))


def _rows(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}


class Watch:
    """Within, the largest of what `read` gives, forty times a second; what it cannot tell is left out."""

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
        # Where it cannot be told, it will not be told later.
        while self.peak is not None and not self._done.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        found = self._read()
        if found is not None:
            self.peak = max(self.peak or 0, found)
