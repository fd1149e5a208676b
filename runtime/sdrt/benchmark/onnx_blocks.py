"""Finds the block of a network that each node of a graph belongs to, from the names of its weights.

These names are a few bytes of an ONNX file, so this module reads the protocol buffer in place, without `onnx`.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from sdrt.errors import IntegrityError

__all__ = ["blocks"]

# Fields of onnx.proto3: ModelProto.graph, GraphProto.node, NodeProto.input and NodeProto.name.
_GRAPH, _NODE, _INPUT, _NAME = 7, 1, 1, 3
_WEIGHT = re.compile(r"(?:^|/)(?:(?:text_model|encoder|decoder)[./])*([a-z][a-z_]*(?:[./]\d+)?)[./]")
_FIXED = {1: 8, 5: 4}


def blocks(path: Path) -> dict[str, str]:
    """Node → block, such as "down_blocks.0", for nodes whose weights or own names contain it."""
    found = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for graph in _fields(data, 0, len(data), _GRAPH):
                for node in _fields(data, *graph, _NODE):
                    name = next((_text(data, *at) for at in _fields(data, *node, _NAME)), "")
                    inputs = [_text(data, *at) for at in _fields(data, *node, _INPUT)]
                    weights = [one for one in inputs if re.search(r"\.(weight|bias)\b", one)]
                    if name and (block := _block(weights[0] if weights else name)):
                        found[name] = block
        except IndexError:
            raise IntegrityError.advised(
                f"{path} is not an ONNX file", "copy or export the model again", path=path
            ) from None
    return found


def _block(name: str) -> str | None:
    match = _WEIGHT.match(name)
    return match[1].replace("/", ".") if match else None


def _fields(data: mmap.mmap, at: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Start and end of every field with the number `wanted`. Raises `IndexError` for a malformed message."""
    while at < end:
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == 2:
            size, at = _varint(data, at)
            if field == wanted:
                yield at, at + size
            at += size
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise IndexError(kind)


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _text(data: mmap.mmap, start: int, end: int) -> str:
    return data[start:end].decode("utf-8", "replace")
