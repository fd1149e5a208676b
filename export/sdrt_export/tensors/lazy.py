"""The tensors of a checkpoint's component by name, mapped from its files and read when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.common.safetensors_file import SafetensorsFile, TensorEntry, as_array, check_unchanged, read_header
from sdrt.errors import IntegrityError
from sdrt_export.tensors.array import Array, Shape

__all__ = ["LazyTensors", "MappedFile", "Source", "Tensors", "shape_of"]


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

    def array(self, name: str) -> Array:
        """A tensor: a view of the mapped file, or widened to float32 (bfloat16, float8)."""
        return as_array(self.header, name, self.raw(name))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one tensor comes from.

    Attributes:
        file, name: the file, and the tensor's name in it.
        shape: the tensor's shape after `arrange`.
        arrange: makes it from the file's, by moving numbers only: a row range, a transposition. None if it is the same.
    """

    file: MappedFile
    name: str
    shape: Shape
    arrange: Callable[[Array], Array] | None = None

    @property
    def entry(self) -> TensorEntry:
        """The tensor's entry in the file's header."""
        return self.file.header.tensors[self.name]

    def array(self) -> Array:
        """The tensor."""
        whole = self.file.array(self.name)
        return whole if self.arrange is None else self.arrange(whole)


class LazyTensors(Mapping[str, Array]):
    """Tensors that are made when they are asked for, whose shapes are known before."""

    @abstractmethod
    def shape(self, name: str) -> Shape:
        """The shape of a tensor, which is not made."""

    @abstractmethod
    def __contains__(self, name: Any) -> bool:
        """Whether there is a tensor of this name. `Mapping` would make the tensor to find out."""


def shape_of(tensors: Mapping[str, Array], name: str) -> Shape:
    """The shape of one of `tensors`. It is read only if `tensors` cannot tell the shape otherwise."""
    return tensors.shape(name) if isinstance(tensors, LazyTensors) else tensors[name].shape


class Tensors(LazyTensors):
    """Tensors by the names that diffusers and transformers give them. `sources` says where each is."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = sources

    @classmethod
    def of_files(cls, paths: Iterable[Path]) -> Tensors:
        """All tensors of some files, under their own names.

        Raises:
            IntegrityError: a tensor is in two files.
            UnsupportedModelError, OSError: as `MappedFile.open`.
        """
        sources: dict[str, Source] = {}
        for file in [MappedFile.open(path) for path in paths]:
            for name, entry in file.header.tensors.items():
                if name in sources:
                    raise IntegrityError.advised(
                        f"{brief(name)} is in {sources[name].file.header.path} and in {file.header.path}",
                        "download the checkpoint again",
                        path=file.header.path,
                    )
                sources[name] = Source(file=file, name=name, shape=entry.shape)
        return cls(sources)

    def shape(self, name: str) -> Shape:
        """See `LazyTensors`."""
        return self.sources[name].shape

    def __getitem__(self, name: str) -> Array:
        return self.sources[name].array()

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __contains__(self, name: Any) -> bool:
        return name in self.sources
