"""The tensors of a checkpoint's component by name, mapped from its files and read when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.common.mapped_file import MappedFile
from sdrt.common.messages import brief
from sdrt.common.safetensors_file import TensorEntry
from sdrt.errors import IntegrityError
from sdrt_export.tensors.array import Array, Shape

__all__ = ["LazyTensors", "MappedFile", "Source", "Tensors", "shape_of"]


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
