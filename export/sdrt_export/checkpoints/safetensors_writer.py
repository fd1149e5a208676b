"""Writes safetensors files, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdrt_export.graphs.weights import Array, Shape

__all__ = ["write_safetensors"]

# The header's end, so that numbers are aligned.
_ALIGNMENT = 8
# transformers refuses files without it.
_METADATA = {"format": "pt"}


def write_safetensors(path: Path, shapes: Mapping[str, Shape], read: Callable[[str], Array]) -> None:
    """Write tensors in float32 to a new file.

    Args:
        path: the file.
        shapes: of all tensors, by name. They are written in the order of their names.
        read: gives a tensor of any floating type. It is called when the tensor is written.
    """
    header: dict[str, Any] = {"__metadata__": _METADATA}
    end = 0
    for name in sorted(shapes):
        start, end = end, end + 4 * int(np.prod(shapes[name], dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(shapes):
            array = np.ascontiguousarray(read(name), "<f4")
            assert array.size == np.prod(shapes[name], dtype=np.int64), name
            file.write(array.data)
