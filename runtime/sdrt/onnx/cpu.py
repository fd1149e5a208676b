"""Reports what this machine's processor supports."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["CPUINFO", "cpu_flags", "is_int8_faster"]

CPUINFO = Path("/proc/cpuinfo")
_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "avx2"})
"""Linux's flags of processors on which products of int8 are faster than products of float32.

All but AVX2 have instructions that sum such products in 32 bits. With AVX2, ONNX Runtime widens the bytes first.
docs/int8.md has the measurements.
"""


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The flags of the first processor that Linux lists. Empty on other systems."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(found.partition(":")[2].split())


def is_int8_faster(cpuinfo: Path = CPUINFO) -> bool | None:
    """Whether int8 is faster than float32 on this processor. None if the processor is not known."""
    flags = cpu_flags(cpuinfo)
    if flags:
        return not _PRODUCTS.isdisjoint(flags)
    # All of Apple's processors have dot products. On Windows and Intel's Macs, only native code could find out.
    return True if platform.system() == "Darwin" and platform.machine() == "arm64" else None
