"""What this machine's processor can do, as far as the system tells."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["CPUINFO", "cpu_flags", "is_int8_faster"]

CPUINFO = Path("/proc/cpuinfo")
_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "avx2"})
"""Flags of Linux, any of which tells of products of bytes that are faster than those of float32.

All but AVX2 have instructions that add them up in 32 bits; with AVX2 ONNX Runtime widens them before (docs/int8.md has
what was measured).
"""


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The flags of the first processor that Linux lists; none where there is no such file."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(found.partition(":")[2].split())


def is_int8_faster(cpuinfo: Path = CPUINFO) -> bool | None:
    """Whether int8 is faster than float32 on a processor like this one; None where nobody says what it is."""
    flags = cpu_flags(cpuinfo)
    if flags:
        return not _PRODUCTS.isdisjoint(flags)
    # Every Mac of Apple's own processors has dot products. Windows, and Macs with Intel's, would have to be asked in C.
    return True if platform.system() == "Darwin" and platform.machine() == "arm64" else None
