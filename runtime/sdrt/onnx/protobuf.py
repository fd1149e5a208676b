"""Writes protocol buffers, of which ONNX models consist: the few kinds of fields that sdrt writes at run time."""

from __future__ import annotations

import struct

__all__ = ["float_field", "message_field", "number_field"]

_NUMBER, _BYTES, _FOUR_BYTES = 0, 2, 5


def message_field(number: int, content: str | bytes) -> bytes:
    """A field that holds a text or another message."""
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def number_field(number: int, value: int) -> bytes:
    """A field that holds a number, not negative."""
    return _varint(number << 3 | _NUMBER) + _varint(value)


def float_field(number: int, value: float) -> bytes:
    """A field that holds a float32."""
    return _varint(number << 3 | _FOUR_BYTES) + struct.pack("<f", value)


def _varint(value: int) -> bytes:
    """A number in groups of 7 bits, the lowest first. All but the last have the highest bit set."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
