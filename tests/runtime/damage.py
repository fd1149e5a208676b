"""Graphs that go wrong while they run, made by editing bytes, so that no test needs the `onnx` package."""

from __future__ import annotations

import re
import struct
from pathlib import Path

__all__ = ["poison"]

# TensorProto: field 8 (name) is followed by field 9 (raw_data), a length-delimited field of varint length.
_RAW_DATA = rb"\x4a([\x80-\xff]*[\x00-\x7f])"


def poison(graph: Path, parameter: str, value: float) -> None:
    """Set every element of the float32 initializer whose name ends with `parameter` to `value`."""
    data = graph.read_bytes()
    found = re.search(re.escape(parameter.encode()) + _RAW_DATA, data)
    assert found is not None, f"{graph} has no inline initializer {parameter}"
    length = _varint(found[1])
    filler = struct.pack("<f", value) * (length // 4)
    graph.write_bytes(data[: found.end()] + filler + data[found.end() + length :])


def _varint(data: bytes) -> int:
    return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(data))
