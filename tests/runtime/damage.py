"""Graphs that go wrong while they run, made by editing bytes, so that no test needs the `onnx` package."""

from __future__ import annotations

import re
import struct
from pathlib import Path

__all__ = ["poison"]

# TensorProto: field 8 (name) is followed by field 9 (raw_data), a length-delimited field of varint length.
_RAW_DATA = rb"\x4a([\x80-\xff]*[\x00-\x7f])"
# Or by field 13 (external_data), pairs of texts: the file, and where in it the numbers are.
_EXTERNAL = rb"\x6a.\x0a\x08location\x12.([\w.]+)\x6a.\x0a\x06offset\x12.(\d+)\x6a.\x0a\x06length\x12.(\d+)"


def poison(graph: Path, parameter: str, value: float) -> None:
    """Set every element of the float32 initializer whose name ends with `parameter` to `value`."""
    data = graph.read_bytes()
    if found := re.search(re.escape(parameter.encode()) + _EXTERNAL, data, re.DOTALL):
        path, start, length = graph.with_name(found[1].decode()), int(found[2]), int(found[3])
    else:
        found = re.search(re.escape(parameter.encode()) + _RAW_DATA, data)
        assert found is not None, f"{graph} has no initializer {parameter}"
        path, start, length = graph, found.end(), _varint(found[1])
    data = path.read_bytes()
    path.write_bytes(data[:start] + struct.pack("<f", value) * (length // 4) + data[start + length :])


def _varint(data: bytes) -> int:
    return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(data))
