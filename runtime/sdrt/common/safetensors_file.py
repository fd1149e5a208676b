"""Reads safetensors files: their header, and the tensors that are asked for, as NumPy arrays.

The library `safetensors` has no NumPy array for bfloat16 and float8. A few shifts of bits turn both into float32, so no
other library is needed. However large a file is, only the header and the tensors that are asked for are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError

__all__ = ["SafetensorsFile", "TensorEntry", "as_array", "read_header", "read_tensor"]

Buffer = bytes | NDArray[np.uint8]

# Headers have 100 bytes for each tensor, and a LoRA's tags. Python takes 20 times as much memory to read one.
_MOST_HEADER = 8 << 20
_MOST_AXES = 16
_PREFIX = 8


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """What the header says of a tensor: its number type, its shape, and where its bytes begin and end in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def __str__(self) -> str:
        """The number type, as NumPy calls it, and the shape, for messages."""
        known = _DTYPES.get(self.dtype)
        return f"{known.name if known else brief(self.dtype)} of shape {self.shape}"


@dataclass(frozen=True, kw_only=True)
class SafetensorsFile:
    """The header of a file: its tensors by name, and texts that the program which wrote it added."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


def read_header(path: Path) -> SafetensorsFile:
    """Read the header of a file.

    Raises:
        UnsupportedModelError: it is not a safetensors file, or it is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(_PREFIX), "little")
        if size < _PREFIX or length > size - _PREFIX:
            raise _damaged(path, "it is cut off, or is another kind of file")
        if length > _MOST_HEADER:
            raise _damaged(path, f"its header has {length} bytes, expected at most {_MOST_HEADER}")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    start = _PREFIX + length
    return SafetensorsFile(
        path=path,
        tensors={name: _entry(path, name, entry, start, size) for name, entry in header.items()},
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _damaged(path: Path, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError.advised(
        f"{path} cannot be read as a safetensors file ({reason})", "download it again", path=path
    )


def _entry(path: Path, name: str, entry: Any, start: int, size: int) -> TensorEntry:
    """Check what the header says of a tensor. Its bytes lie between `start` and `size`, the end of the file."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, place = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if (
        not isinstance(dtype, str)
        or not (_are_counts(shape) and len(shape) <= _MOST_AXES)
        or not (_are_counts(place) and len(place) == 2 and place[0] <= place[1] <= size - start)
    ):
        raise _damaged(path, f"its header does not describe {brief(name)}")
    known = _DTYPES.get(dtype)
    if known is not None and math.prod(shape) * known.bytes != place[1] - place[0]:
        raise _damaged(path, f"the size of {brief(name)} does not fit its shape")
    return TensorEntry(dtype=dtype, shape=tuple(shape), start=start + place[0], end=start + place[1])


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 62 for one in value)


def read_tensor(file: SafetensorsFile, name: str) -> NDArray[Any]:
    """Read a tensor. bfloat16 and float8 become float32; other types stay.

    The caller must have checked the shape, which decides how much memory this takes.

    Raises:
        UnsupportedModelError: the number type is not supported.
        OSError: the file cannot be read.
    """
    entry = file.tensors[name]
    with file.path.open("rb") as stream:
        stream.seek(entry.start)
        data = stream.read(entry.end - entry.start)
    if len(data) != entry.end - entry.start:
        raise _damaged(file.path, "it was cut off while it was read")
    return as_array(file, name, data)


def as_array(file: SafetensorsFile, name: str, data: Buffer) -> NDArray[Any]:
    """Make a tensor of its bytes. bfloat16 and float8 become float32; other types are views of `data`.

    Raises:
        UnsupportedModelError: the number type is not supported.
    """
    entry = file.tensors[name]
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        raise UnsupportedModelError.advised(
            f"{file.path}: {brief(name)} has the number type {brief(entry.dtype)}, which is not supported",
            "save it in float16",
            path=file.path,
        )
    return dtype.widen(np.frombuffer(data, dtype.stored)).reshape(entry.shape)


@dataclass(frozen=True)
class _Dtype:
    """The name of a number type, how numbers are stored, and how they become numbers that NumPy knows."""

    name: str
    stored: str
    widen: Callable[[NDArray[Any]], NDArray[Any]] = lambda raw: raw

    @property
    def bytes(self) -> int:
        return np.dtype(self.stored).itemsize


def _from_bfloat16(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    """A bfloat16 is the upper half of a float32."""
    return (raw.astype(np.uint32) << 16).view(np.float32)


def _from_e5m2(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A float8 with 5 bits of exponent is the upper half of a float16 (Micikevicius et al. 2022, arXiv:2209.05433)."""
    return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def _from_e4m3(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A float8 with 4 bits of exponent. As a float16 with the same bits it is 256 times too small; 0x7F is NaN."""
    bits = raw.astype(np.uint16)
    half = ((bits & 0x80) << 8 | (bits & 0x7F) << 7).view(np.float16)
    found: NDArray[np.float32] = half.astype(np.float32) * np.float32(256)
    found[bits & 0x7F == 0x7F] = np.nan
    return found


_DTYPES: Mapping[str, _Dtype] = {
    "F64": _Dtype("float64", "<f8"),
    "F32": _Dtype("float32", "<f4"),
    "F16": _Dtype("float16", "<f2"),
    "BF16": _Dtype("bfloat16", "<u2", _from_bfloat16),
    "F8_E5M2": _Dtype("float8_e5m2", "u1", _from_e5m2),
    "F8_E4M3": _Dtype("float8_e4m3", "u1", _from_e4m3),
    "I64": _Dtype("int64", "<i8"),
    "I32": _Dtype("int32", "<i4"),
    "I16": _Dtype("int16", "<i2"),
    "I8": _Dtype("int8", "i1"),
    "U8": _Dtype("uint8", "u1"),
    "BOOL": _Dtype("bool", "?"),
}
