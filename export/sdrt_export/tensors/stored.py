"""Tensors as a checkpoint's files store them, in the files' own number types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from sdrt_export.tensors.array import Array
from sdrt_export.tensors.changed import ChangedTensors
from sdrt_export.tensors.finite import FiniteTensors
from sdrt_export.tensors.joined import JoinedTensors
from sdrt_export.tensors.lazy import Source, Tensors

__all__ = ["Stored", "stored"]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor in its own number type.

    Attributes:
        array: its numbers, or their bits where NumPy has no such type.
        dtype: ONNX's number for the type.
        file: the file that `array` is a view of, links followed. None if no file has these bytes.
        offset: where in the file it begins.
    """

    array: Array
    dtype: int
    file: Path | None = None
    offset: int = 0


@dataclass(frozen=True)
class _Kind:
    """How a file's number type is called by NumPy, which may have only its bits, and by ONNX."""

    numpy: str
    onnx: int


_KINDS: Mapping[str, _Kind] = {
    "F64": _Kind("<f8", TensorProto.DOUBLE),
    "F32": _Kind("<f4", TensorProto.FLOAT),
    "F16": _Kind("<f2", TensorProto.FLOAT16),
    "BF16": _Kind("<u2", TensorProto.BFLOAT16),
    "F8_E4M3": _Kind("u1", TensorProto.FLOAT8E4M3FN),
    "F8_E5M2": _Kind("u1", TensorProto.FLOAT8E5M2),
}
_OF_NUMPY = {
    np.dtype(row.numpy): row.onnx for name, row in _KINDS.items() if name[0] == "F" and row.numpy[0] != "u"
}


def stored(tensors: Mapping[str, Array], name: str) -> Stored:
    """A tensor of a checkpoint, as its file has it if it is in one. Its numbers are not checked."""
    if isinstance(tensors, JoinedTensors):
        return stored(tensors.part_of(name), name)
    if isinstance(tensors, ChangedTensors) and name in tensors.names:
        return Stored(array=tensors[name], dtype=TensorProto.FLOAT)
    while isinstance(tensors, (ChangedTensors, FiniteTensors)):
        tensors = tensors.tensors
    source = tensors.sources[name] if isinstance(tensors, Tensors) else None
    if source is not None and source.entry.dtype in _KINDS:
        return _in_file(source)
    array = tensors[name]
    if array.dtype not in _OF_NUMPY:
        array = array.astype(np.float32)
    return Stored(array=array, dtype=_OF_NUMPY[array.dtype])


def _in_file(source: Source) -> Stored:
    kind = _KINDS[source.entry.dtype]
    raw = source.file.raw(source.name)
    whole: NDArray[Any] = np.frombuffer(raw, kind.numpy).reshape(source.entry.shape)
    array = whole if source.arrange is None else source.arrange(whole)
    offset = _address(array) - _address(whole)
    if array.flags.c_contiguous and 0 <= offset <= whole.nbytes - array.nbytes:
        file = Path(os.path.realpath(source.file.header.path))
        return Stored(array=array, dtype=kind.onnx, file=file, offset=source.entry.start + offset)
    return Stored(array=array, dtype=kind.onnx)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
