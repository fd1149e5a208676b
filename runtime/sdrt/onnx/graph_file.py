"""Reads what an ONNX file says of its graph, without its weights, `onnx` or ONNX Runtime.

The file is a protocol buffer, which this module reads in place. It skips the weights, so that a file of gigabytes takes
only a few megabytes of memory.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sdrt.errors import IntegrityError
from sdrt.onnx.memory_graph import MemoryGraph, only_multiplied

__all__ = [
    "FLOAT32",
    "MICROSOFT",
    "ElsewhereWeight",
    "FusedNode",
    "GraphFile",
    "Node",
    "fused_nodes",
    "opset_of",
    "read_graph",
    "read_graph_bytes",
]

# Fields of onnx.proto3, by message.
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL = 1, 2, 8, 9, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM = 1, 2, 1, 2, 1
_DIM_VALUE, _DIM_NAME = 1, 2
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR = 1, 2, 3, 5
MICROSOFT = "com.microsoft"
"""The domain of the operators that only ONNX Runtime has."""
FLOAT32 = 1
"""ONNX's number of float32."""
# Bytes of a float32 and a float16.
_FLOATS = {FLOAT32: 4, 10: 2}
# A length in bytes that ends with it is not that of a float32 weight.
_ODD_DIGIT = ord("1")

_FIXED = {1: 8, 5: 4}
_BYTES = 2
# Stable Diffusion's U-Net has 7,000 operators and constants, 40,000 fields, and 1 MB of names.
_MOST_FIELDS, _MOST_OPERATORS, _MOST_TEXT = 2_000_000, 200_000, 1 << 26
_LONGEST_NAME = 4096

Span = tuple[int, int]
"""Where a field begins and ends in the file; for a number, the number twice."""

_NOWHERE: Span = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator, its own name, and the names of the tensors that it takes and makes."""

    op: str
    name: str = ""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FusedNode:
    """An operator of the domain `MICROSOFT`: its inputs, its numbers by name, and where its domain's name is.

    An attribute that is no number is 0.
    """

    inputs: tuple[str, ...]
    numbers: Mapping[str, float]
    domain: Span


@dataclass(frozen=True, kw_only=True)
class ElsewhereWeight:
    """A weight that is in another file, or in the graph's own.

    Attributes:
        shape: its shape.
        dtype: ONNX's number of its type.
        location: the file's name, relative to the folder of the graph.
        offset: where in the file it begins, in bytes.
        length: where the graph says how many bytes it has. None if the graph does not say so.
    """

    shape: tuple[int, ...]
    dtype: int
    location: str
    offset: int
    length: Span | None = None


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """A graph without its weights.

    Attributes:
        path: the file.
        inputs, outputs: the shape of each, by name. A dimension is a number, or a name (which may be empty) if it is
            free.
        nodes: the operators, in the order in which they run.
        constants: the shape of each weight and constant, by name.
        external: the names of the files that hold weights, relative to the folder of `path`.
        elsewhere: the weights in those files, by name.
        within: the weights in `path` itself, by name: those whose floats follow one another there.
    """

    path: Path
    inputs: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)
    external: set[str] = field(default_factory=set)
    elsewhere: dict[str, ElsewhereWeight] = field(default_factory=dict)
    within: dict[str, ElsewhereWeight] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, ElsewhereWeight]:
        """The weights in `path` and in other files, by name."""
        return {**self.within, **self.elsewhere}

    def with_values(self, values: Mapping[str, NDArray[Any]], *, is_optimized: bool = False) -> MemoryGraph:
        """The graph with other values for some of its weights. Each has the shape and the type of its weight.

        `is_optimized` says that no optimizer will read the graph, so that no float32 value needs to be copied.
        """
        content = bytearray(self.path.read_bytes())
        inside = {name: value for name, value in values.items() if name in self.within}
        others = {name: value for name, value in values.items() if name not in inside}
        for name, value in inside.items():
            new, start = value.tobytes(), self.within[name].offset
            content[start : start + len(new)] = new
        readers = others if is_optimized else only_multiplied((node.op, node.inputs) for node in self.nodes)
        uncopied = {name for name in others if name in readers and self._misstate_length(name, content)}
        return MemoryGraph(
            content=bytes(content),
            folder=self.path.parent,
            values=others,
            uncopied=frozenset(uncopied),
            inside=inside,
            structure="",
        )

    def _misstate_length(self, name: str, content: bytearray) -> bool:
        """Make a weight unreadable. False if it is not float32, or `content` does not say its length."""
        weight = self.elsewhere[name]
        if weight.dtype != FLOAT32 or weight.length is None:
            return False
        content[weight.length[1] - 1] = _ODD_DIGIT
        return True


def read_graph(path: Path) -> GraphFile:
    """Read the graph of an ONNX file.

    Raises:
        IntegrityError: the file is not an ONNX file, or is cut off.
        OSError: it cannot be read.
    """
    with _mapped(path) as data:
        return read_graph_bytes(data, path)


def read_graph_bytes(data: mmap.mmap | bytes, path: Path) -> GraphFile:
    """Read the graph of an ONNX file's bytes, or of a graph in memory, which errors call `path`.

    Raises:
        IntegrityError: this is not an ONNX graph, or it is cut off.
    """
    found = GraphFile(path=path)
    try:
        _Reader(data, found).read()
    except IndexError:
        raise _damaged(path) from None
    if not found.nodes:
        raise _damaged(path)
    return found


def fused_nodes(data: bytes, path: Path, op: str) -> list[FusedNode]:
    """The operators `op` of the domain `MICROSOFT` in a graph's bytes, which errors call `path`.

    Raises:
        IntegrityError: this is not an ONNX graph, or it is cut off.
    """
    try:
        return list(_Reader(data, GraphFile(path=path)).fused_nodes(op))
    except IndexError:
        raise _damaged(path) from None


def opset_of(data: bytes, path: Path) -> int:
    """The version of ONNX's operators that a graph uses.

    Raises:
        IntegrityError: this is not an ONNX graph, or it is cut off.
    """
    try:
        return _Reader(data, GraphFile(path=path)).opset()
    except IndexError:
        raise _damaged(path) from None


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError.advised(
        f"{path} is not an ONNX file, or is damaged",
        "copy or export the model again",
        path=path,
        component=path.parent.name,
    )


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file, which are read when they are used."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # the file is empty
            raise _damaged(path) from None
        with data:
            yield data


class _Reader:
    """Fills a `GraphFile`. Raises `IndexError` for a malformed or an enormous file."""

    def __init__(self, data: mmap.mmap | bytes, found: GraphFile) -> None:
        self._data, self._found = data, found
        self._fields_left, self._text_left = _MOST_FIELDS, _MOST_TEXT

    def read(self) -> None:
        for number, span in self._fields(0, len(self._data)):
            if number == _MODEL_GRAPH:
                self._read_graph(span)

    def fused_nodes(self, op: str) -> Iterator[FusedNode]:
        graphs = [span for number, span in self._fields(0, len(self._data)) if number == _MODEL_GRAPH]
        nodes = [at for graph in graphs for number, at in self._fields(*graph) if number == _GRAPH_NODE]
        for span in nodes:
            fields = list(self._fields(*span))
            texts = {number: self._text(at) for number, at in fields if number in (_NODE_OP, _NODE_DOMAIN)}
            if texts == {_NODE_OP: op, _NODE_DOMAIN: MICROSOFT}:
                yield FusedNode(
                    inputs=tuple(self._text(at) for number, at in fields if number == _NODE_INPUT),
                    numbers=dict(self._number(at) for number, at in fields if number == _NODE_ATTRIBUTE),
                    domain=next(at for number, at in fields if number == _NODE_DOMAIN),
                )

    def _number(self, attribute: Span) -> tuple[str, float]:
        fields = dict(self._fields(*attribute))
        name = self._text(fields.get(_ATTRIBUTE_NAME, _NOWHERE))
        if _ATTRIBUTE_FLOAT in fields:
            (value,) = struct.unpack("<f", self._data[slice(*fields[_ATTRIBUTE_FLOAT])])
            return name, value
        return name, fields.get(_ATTRIBUTE_INT, _NOWHERE)[0]

    def opset(self) -> int:
        for number, span in self._fields(0, len(self._data)):
            fields = dict(self._fields(*span)) if number == _MODEL_OPSET else {}
            # ONNX's own domain has an empty name, which may be left out.
            if _OPSET_VERSION in fields and not self._text(fields.get(_OPSET_DOMAIN, _NOWHERE)):
                return fields[_OPSET_VERSION][0]
        raise IndexError("opset")

    def _read_graph(self, graph: Span) -> None:
        for number, span in self._fields(*graph):
            if number == _GRAPH_NODE:
                self._read_node(span)
            elif number == _GRAPH_INITIALIZER:
                self._read_tensor(span)
            elif number == _GRAPH_INPUT:
                self._read_value(span, self._found.inputs)
            elif number == _GRAPH_OUTPUT:
                self._read_value(span, self._found.outputs)

    def _read_node(self, node: Span) -> None:
        texts, inputs, outputs, tensors = {}, [], [], []
        for number, span in self._fields(*node):
            if number in (_NODE_OP, _NODE_NAME):
                texts[number] = self._text(span)
            elif number == _NODE_INPUT:
                inputs.append(self._text(span))
            elif number == _NODE_OUTPUT:
                outputs.append(self._text(span))
            elif number == _NODE_ATTRIBUTE:
                tensors += [at for key, at in self._fields(*span) if key == _ATTRIBUTE_TENSOR]
        if len(self._found.nodes) + len(self._found.constants) >= _MOST_OPERATORS:
            raise IndexError(node)
        op, name = texts.get(_NODE_OP, ""), texts.get(_NODE_NAME, "")
        self._found.nodes.append(Node(op=op, name=name, inputs=tuple(inputs), outputs=tuple(outputs)))
        if op == "Constant" and tensors and outputs:
            self._read_tensor(tensors[0], outputs[0])

    def _read_tensor(self, tensor: Span, name: str = "") -> None:
        dims: list[int] = []
        dtype, place, is_initializer, raw = 0, dict[str, Span](), not name, _NOWHERE
        for number, span in self._fields(*tensor):
            if number == _TENSOR_DIMS:
                dims += self._numbers(span)
            elif number == _TENSOR_TYPE:
                dtype = span[0]
            elif number == _TENSOR_NAME:
                name = name or self._text(span)
            elif number == _TENSOR_RAW:
                raw = span
            elif number == _TENSOR_EXTERNAL:
                entry = dict(self._fields(*span))
                place[self._text(entry.get(_ENTRY_KEY, _NOWHERE))] = entry.get(_ENTRY_VALUE, _NOWHERE)
        self._found.constants[name] = tuple(dims)
        if "location" in place:
            self._add_elsewhere(name, tuple(dims), dtype, place)
        elif is_initializer and raw[1] - raw[0] == prod(dims) * _FLOATS.get(dtype, 0) > 0:
            self._found.within[name] = ElsewhereWeight(
                shape=tuple(dims), dtype=dtype, location=self._found.path.name, offset=raw[0]
            )

    def _add_elsewhere(
        self, name: str, shape: tuple[int, ...], dtype: int, place: Mapping[str, Span]
    ) -> None:
        location = self._text(place["location"])
        offset = self._text(place["offset"]) if "offset" in place else "0"
        length = place.get("length", _NOWHERE)
        self._found.external.add(location)
        if offset.isdecimal() and len(offset) < 20:
            self._found.elsewhere[name] = ElsewhereWeight(
                shape=shape,
                dtype=dtype,
                location=location,
                offset=int(offset),
                length=length if self._text(length).isdecimal() else None,
            )

    def _read_value(self, value: Span, into: dict[str, tuple[int | str, ...]]) -> None:
        name: str = ""
        shape: tuple[int | str, ...] = ()
        for number, span in self._fields(*value):
            if number == _VALUE_NAME:
                name = self._text(span)
            elif number == _VALUE_TYPE:
                shape = self._shape(span)
        into[name] = shape

    def _shape(self, kind: Span) -> tuple[int | str, ...]:
        tensors = [at for number, at in self._fields(*kind) if number == _TYPE_TENSOR]
        shapes = [at for span in tensors for number, at in self._fields(*span) if number == _TENSOR_SHAPE]
        dims = [at for span in shapes for number, at in self._fields(*span) if number == _SHAPE_DIM]
        return tuple(self._dim(span) for span in dims)

    def _dim(self, dim: Span) -> int | str:
        for number, span in self._fields(*dim):
            if number == _DIM_VALUE:
                return span[0]
            if number == _DIM_NAME:
                return self._text(span)
        return ""

    def _numbers(self, span: Span) -> list[int]:
        """Numbers of a repeated field: one of them, or several packed together."""
        start, end = span
        if start == end:  # a number; packed numbers take at least a byte
            return [start]
        found = []
        while start < end:
            value, start = _varint(self._data, start)
            found.append(value)
        return found

    def _text(self, span: Span) -> str:
        length = span[1] - span[0]
        self._text_left -= length
        if length > _LONGEST_NAME or self._text_left < 0:
            raise IndexError(span)
        return self._data[slice(*span)].decode("utf-8", "replace")

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, Span]]:
        for found in _fields(self._data, start, end):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise IndexError(start)
            yield found


def _fields(data: mmap.mmap | bytes, at: int, end: int) -> Iterator[tuple[int, Span]]:
    """Yield the number and span of every field of a message. Raises `IndexError` for a malformed message."""
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _BYTES:
            size, at = _varint(data, at)
            if at + size > end:
                raise IndexError(at)
            yield number, (at, at + size)
            at += size
        elif kind == 0:
            value, at = _varint(data, at)
            yield number, (value, value)
        elif kind in _FIXED:
            if at + _FIXED[kind] > end:
                raise IndexError(at)
            yield number, (at, at + _FIXED[kind])
            at += _FIXED[kind]
        else:
            raise IndexError(kind)


def _varint(data: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise IndexError(at)
