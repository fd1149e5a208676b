"""Writes safetensors files, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdrt_export.tensors.array import Array, Shape

__all__ = ["write_safetensors"]

# The header ends at a multiple of this many bytes, so that numbers are aligned.
_ALIGNMENT = 8
# transformers refuses files without this entry.
_METADATA = {"format": "pt"}
_NUMPY: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}


def write_safetensors(
    path: Path, shapes: Mapping[str, Shape], read: Callable[[str], Array], *, dtype: str = "F32"
) -> None:
    """Write tensors to a new file.

    Args:
        path: the file.
        shapes: of all tensors, by name. They are written in the order of their names.
        read: gives a tensor of any floating type. It is called when the tensor is written.
        dtype: the type that they are stored in: "F32" or "F16".
    """
    header: dict[str, Any] = {"__metadata__": _METADATA}
    end = 0
    for name in sorted(shapes):
        start, end = end, end + _NUMPY[dtype].itemsize * int(np.prod(shapes[name], dtype=np.int64))
        header[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(shapes):
            array = np.ascontiguousarray(read(name), _NUMPY[dtype])
            assert array.size == np.prod(shapes[name], dtype=np.int64), name
            file.write(array.data)
