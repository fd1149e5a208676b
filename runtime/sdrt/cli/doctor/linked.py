"""Reads from a library's file which libraries it is linked with, and loads nothing."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

__all__ = ["linked_libraries"]

_ELF64 = b"\x7fELF\x02\x01"
_LOAD, _DYNAMIC = 1, 2
_END, _NEEDED, _STRINGS = 0, 1, 5


def linked_libraries(path: Path) -> list[str] | None:
    """The names that an ELF library for 64 bits asks the loader for (`DT_NEEDED`). None for any other file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _needed(data) if data[: len(_ELF64)] == _ELF64 else None
    except (OSError, OverflowError, ValueError, struct.error, StopIteration):  # empty or damaged
        return None


def _needed(data: mmap.mmap) -> list[str]:
    (first,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    # Of each segment: kind, flags, place in the file, address, physical address, size.
    segments = [struct.unpack_from("<IIQQQQ", data, first + number * size) for number in range(count)]
    _, _, start, _, _, length = next(one for one in segments if one[0] == _DYNAMIC)
    entries = []
    for tag, value in struct.iter_unpack("<QQ", data[start : start + length // 16 * 16]):
        if tag == _END:
            break
        entries.append((tag, value))
    address = next(value for tag, value in entries if tag == _STRINGS)
    strings = next(
        place + address - begin
        for kind, _, place, begin, _, extent in segments
        if kind == _LOAD and begin <= address < begin + extent
    )
    return [_text(data, strings + value) for tag, value in entries if tag == _NEEDED]


def _text(data: mmap.mmap, start: int) -> str:
    end = data.find(b"\0", start)
    if end < 0:
        raise ValueError("a name without its end")
    return data[start:end].decode("utf-8", "replace")
