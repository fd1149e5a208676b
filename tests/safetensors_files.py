"""Writes safetensors files without the library, which the runtime does not need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["save_file", "write_file"]

_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32"}


def save_file(tensors: Mapping[str, np.ndarray[Any, Any]], path: Path) -> None:
    """Write arrays by name, as `safetensors.numpy.save_file` does."""
    header, end = {}, 0
    for name, array in tensors.items():
        place = [end, end + array.nbytes]
        header[name] = {"dtype": _NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": place}
        end += array.nbytes
    write_file(path, header, (array.tobytes() for array in tensors.values()))


def write_file(path: Path, header: Mapping[str, Any], data: Iterable[bytes] = ()) -> None:
    """Write a header as it is, and the bytes of the tensors behind it."""
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(data)
