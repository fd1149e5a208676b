"""What Linux allows this process: the CPUs and the memory of its control groups, which containers are made of."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOT", "groups_of", "share_of_cpus", "usable_cpus"]

ROOT = Path("/")


def usable_cpus(root: Path = ROOT) -> int | None:
    """The number of CPUs that this process may use at once: its affinity, or less by the quota of its control groups.

    None if the system does not report it. `root` is where /proc and /sys are.
    """
    quota = _quota(root)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    known = [count for count in (allowed, quota) if count is not None]
    return min(known, default=None)


def share_of_cpus(workers: int) -> int | None:
    """The CPU threads of each of several workers, so that together they take every CPU. None for a single worker."""
    return None if workers == 1 else max(1, (usable_cpus() or 1) // workers)


def groups_of(controller: str, root: Path = ROOT) -> Iterator[Path]:
    """The folders of this process's control groups for "cpu" or "memory", of versions 2 and 1, innermost first.

    In a container, /proc may name a group of the host. Then only the outermost folder exists, which is the container's.
    """
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    paths = {controllers: Path(path.lstrip("/")) for _, controllers, path in _split(lines)}
    version_1 = next((path for names, path in paths.items() if controller in names.split(",")), Path())
    for base, path in (
        (mount, paths.get("", Path())),
        (mount / "unified", paths.get("", Path())),
        (mount / controller, version_1),
    ):
        yield from (base / inner for inner in (path, *path.parents) if (base / inner).is_dir())


def _split(lines: list[str]) -> Iterator[list[str]]:
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts


def _quota(root: Path) -> int | None:
    """The CPUs' worth of time that the control groups allow, rounded up. None without a limit."""
    found = [_share(group) for group in groups_of("cpu", root)]
    return min((math.ceil(share) for share in found if share is not None), default=None)


def _share(group: Path) -> float | None:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        # "max" or -1 means no limit.
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
