"""Reads safetensors files: their header, and the tensors that are asked for, as NumPy arrays.

The library `safetensors` has no NumPy array for bfloat16 and float8. A few shifts of bits turn both into float32, so no
other library is needed. However large a file is, only the header and the tensors that are asked for are read.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sdrt.common.file_identity import check_same, identity_of
from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError

__all__ = [
    "SafetensorsFile",
    "TensorEntry",
    "as_array",
    "check_unchanged",
    "read_header",
    "read_tensor",
]

Buffer = bytes | NDArray[np.uint8]

# Headers have 100 bytes for each tensor, and a LoRA's tags. Python takes 20 times as much memory to read one.
_MOST_HEADER = 8 << 20
_MOST_AXES, _MOST_DIGITS = 16, 20
_MOST_ELEMENTS = 1 << 48
_PREFIX = 8
_METADATA = "__metadata__"
_PICKLE = "only .safetensors is read, because a pickle runs code: use a file in that format"
# The first bytes of other files that people save under such a name.
_OTHER_KINDS: Sequence[tuple[bytes, str, str]] = (
    (b"version ", "a pointer of Git LFS", "fetch the file itself with git lfs pull, or download it again"),
    (b"<", "a web page", "download it again; the site may want you to log in"),
    (b"GGUF", "a GGUF file", "use the model's .safetensors"),
    (b"PK\x03\x04", "a zip archive, as torch saves pickles", _PICKLE),
    *((bytes([0x80, protocol]), "a pickle", _PICKLE) for protocol in range(2, 6)),
    (b"\x89HDF", "an HDF5 file of Keras", "use the model's .safetensors"),
    (b"\x89PNG", "a PNG image", "give a file of weights"),
    (b"\xff\xd8\xff", "a JPEG image", "give a file of weights"),
    (b"{", "a text in JSON", "give the file of weights"),
)


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
    """The header of a file: its tensors by name, and texts that the program which wrote it added.

    `identity` differs for a file that replaced this one, or that was written since (`check_unchanged`).
    """

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    identity: tuple[int, ...] = field(repr=False)


def read_header(path: Path) -> SafetensorsFile:
    """Read the header of a file.

    Raises:
        UnsupportedModelError: it is not a safetensors file, or it is damaged.
        OSError: it cannot be read.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):  # reading a pipe or a device would wait, or never end
        what = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe or a device"
        raise UnsupportedModelError.expected(f"{path} is {what}", "a safetensors file", path=path)
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        text = _header_text(path, file, state.st_size)
    header = _parsed(path, text)
    start = _PREFIX + len(text)
    tensors = {
        name: _entry(path, name, entry, start, state.st_size)
        for name, entry in header.items()
        if name != _METADATA
    }
    _check_places(path, tensors, start, state.st_size)
    return SafetensorsFile(
        path=path,
        tensors=tensors,
        metadata=_metadata(path, header.get(_METADATA)),
        identity=identity_of(state),
    )


def check_unchanged(file: SafetensorsFile) -> None:
    """Check that a file is still the one whose header was read.

    Raises:
        UnsupportedModelError: it was written, replaced or removed since then.
    """
    check_same(file.path, file.identity)


def _header_text(path: Path, file: BinaryIO, size: int) -> bytes:
    prefix = file.read(_PREFIX)
    length = int.from_bytes(prefix, "little")
    if size < _PREFIX or length > size - _PREFIX:
        raise _other_kind(path, prefix) or _damaged(path, "it is cut off, or is another kind of file")
    if length > _MOST_HEADER:
        raise _damaged(path, f"its header has {length} bytes, expected at most {_MOST_HEADER}")
    text = file.read(length)
    if len(text) != length:
        raise _damaged(path, "it was cut off while it was read")
    return text


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    """The header's JSON object. Unlike `json`, this refuses keys that stand twice, NaN, and encodings but UTF-8."""
    try:
        header = json.loads(
            text.decode(),
            object_pairs_hook=_once,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except _DuplicateKeyError as error:
        raise _damaged(path, f"its header names {brief(error.args[0])} twice") from None
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header


class _DuplicateKeyError(ValueError):
    """A key stands twice in a JSON object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKeyError(next(name for name in made if names.count(name) > 1))
    for text in itertools.chain.from_iterable(pairs):
        if isinstance(text, str):
            text.encode()  # JSON may hold halves of characters, which cannot be written
    return made


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(digits)
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _metadata(path: Path, found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _damaged(path, f"its {_METADATA} is not an object of texts")
    return found


def _other_kind(path: Path, prefix: bytes) -> UnsupportedModelError | None:
    """The error that says what a file is, if its first bytes show it."""
    for begins, what, remedy in _OTHER_KINDS:
        if prefix.startswith(begins):
            return _damaged(path, f"it is {what}", remedy)
    return None


def _damaged(path: Path, reason: str, remedy: str = "download it again") -> UnsupportedModelError:
    return UnsupportedModelError.advised(
        f"{path} cannot be read as a safetensors file ({reason})", remedy, path=path
    )


def _entry(path: Path, name: str, entry: Any, start: int, size: int) -> TensorEntry:
    """Check what the header says of a tensor. Its bytes lie between `start` and `size`, the end of the file."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, place = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if (
        not isinstance(dtype, str)
        or not (_are_counts(shape) and len(shape) <= _MOST_AXES)
        or not (_are_counts(place) and len(place) == 2 and place[0] <= place[1])
    ):
        raise _damaged(path, f"its header does not describe {brief(name)}")
    if place[1] > size - start:
        raise _damaged(
            path, f"it is cut off: {brief(name)} ends at byte {start + place[1]}, and the file has {size}"
        )
    bits = _BITS.get(dtype)
    length = place[1] - place[0]
    if bits is not None and math.prod(shape) * bits != 8 * length:
        raise _damaged(path, f"the size of {brief(name)} does not fit its shape")
    if math.prod(n for n in shape if n) > _MOST_ELEMENTS:  # NumPy has no such array, even if it is empty
        raise _damaged(path, f"the shape of {brief(name)} is too large")
    return TensorEntry(dtype=dtype, shape=tuple(shape), start=start + place[0], end=start + place[1])


def _check_places(path: Path, tensors: Mapping[str, TensorEntry], start: int, size: int) -> None:
    """Check that every byte behind the header belongs to one tensor, as the format says."""
    reached, before = start, ""
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start < reached:
            raise _damaged(path, f"the bytes of {brief(before)} and {brief(name)} overlap")
        if entry.start > reached:
            raise _damaged(path, f"{entry.start - reached} bytes before {brief(name)} belong to no tensor")
        reached, before = entry.end, name
    if reached != size:
        raise _damaged(path, f"its last {size - reached} bytes belong to no tensor")


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
    check_unchanged(file)
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
    "U64": _Dtype("uint64", "<u8"),
    "U32": _Dtype("uint32", "<u4"),
    "U16": _Dtype("uint16", "<u2"),
    "I64": _Dtype("int64", "<i8"),
    "I32": _Dtype("int32", "<i4"),
    "I16": _Dtype("int16", "<i2"),
    "I8": _Dtype("int8", "i1"),
    "U8": _Dtype("uint8", "u1"),
    "BOOL": _Dtype("bool", "?"),
}
# The sizes of the types that are only checked, too.
_BITS: Mapping[str, int] = {
    **{name: 8 * dtype.bytes for name, dtype in _DTYPES.items()},
    **{"C64": 64, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
