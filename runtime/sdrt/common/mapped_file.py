"""A safetensors file whose bytes are mapped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.safetensors_file import SafetensorsFile, as_array, check_unchanged, read_header

__all__ = ["MappedFile"]


@dataclass(frozen=True)
class MappedFile:
    """A safetensors file whose bytes are mapped, so that its tensors are views."""

    header: SafetensorsFile

    @classmethod
    def open(cls, path: Path) -> MappedFile:
        """Map a file and check its header.

        Raises:
            UnsupportedModelError: it is not a safetensors file, or it is damaged.
            OSError: it cannot be read.
        """
        return cls(read_header(path))

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        return np.memmap(self.header.path, np.uint8, mode="r")

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, a view of the mapped file.

        Raises:
            UnsupportedModelError: the file changed since its header was read.
        """
        check_unchanged(self.header)  # the kernel ends a process that reads beyond a mapped file's end
        entry = self.header.tensors[name]
        return self._bytes[entry.start : entry.end]

    def array(self, name: str) -> NDArray[Any]:
        """A tensor: a view of the mapped file, or widened to float32 (bfloat16, float8)."""
        return as_array(self.header, name, self.raw(name))
