"""What this machine's processor can do, as far as the system tells."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["CPUINFO", "cpu_flags", "has_int8_products"]

CPUINFO = Path("/proc/cpuinfo")
_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})
"""Flags of Linux, any of which tells of instructions that add products of bytes up in 32 bits."""


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The flags of the first processor that Linux lists; none where there is no such file."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(found.partition(":")[2].split())


def has_int8_products(cpuinfo: Path = CPUINFO) -> bool | None:
    """Whether the processor adds products of bytes up in 32 bits (VNNI, dot products); None where nobody says."""
    flags = cpu_flags(cpuinfo)
    if flags:
        return not _PRODUCTS.isdisjoint(flags)
    # Every Mac of Apple's own processors has them. Windows, and Macs with Intel's, would have to be asked in C.
    return True if platform.system() == "Darwin" and platform.machine() == "arm64" else None
