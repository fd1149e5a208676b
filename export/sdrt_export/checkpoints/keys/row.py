"""A row of a table of names, and how a table is applied to the tensors of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdrt.errors import UnsupportedModelError
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.lazy import MappedFile, Source

__all__ = ["LINEAR", "TRANSPOSED", "Row", "Taken", "half", "inside", "taken", "third"]


@dataclass(frozen=True)
class _Take:
    """How a tensor is rearranged, and the shape after that. Numbers do not change."""

    arrange: Callable[[Array], Array]
    shape: Callable[[Shape], Shape]


def _flat(shape: Shape) -> Shape:
    """The shape of a 1x1 convolution's weight as a matrix. Other shapes stay, and a later check refuses them."""
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape


TRANSPOSED = _Take(lambda tensor: tensor.T, lambda shape: shape[::-1])
"""OpenCLIP multiplies by its projection from the right."""
LINEAR = _Take(lambda tensor: tensor.reshape(_flat(tensor.shape)), _flat)
"""The VAE's attention, whose 1x1 convolutions are matrices in diffusers."""


def third(index: int) -> _Take:
    """One of the three parts of a tensor that joins queries, keys and values along its first axis.

    A tensor without three equal parts stays whole, and a later check refuses its shape.
    """
    return _part(index, 3)


def half(index: int) -> _Take:
    """One of the two parts of a tensor that joins keys and values, as `third`."""
    return _part(index, 2)


def _part(index: int, count: int) -> _Take:
    def cut(shape: Shape) -> Shape:
        return (shape[0] // count, *shape[1:]) if shape and shape[0] % count == 0 else shape

    def part(tensor: Array) -> Array:
        (size, *_) = cut(tensor.shape)
        return tensor[index * size : (index + 1) * size]

    return _Take(part, cut)


@dataclass(frozen=True)
class Row:
    """Maps `of`, a tensor or a module of the file, to diffusers' name `to`. A module's tensors keep their own names."""

    to: str
    of: str
    take: _Take | None = None


def inside(to: str, of: str, rows: Iterable[Row]) -> list[Row]:
    """The rows of a block that is `to` in diffusers and `of` in the file."""
    return [Row(f"{to}.{row.to}", f"{of}.{row.of}", row.take) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The tensors of a component by diffusers' names, and the file's names that no row takes."""

    sources: Mapping[str, Source]
    left_over: Sequence[str]


def taken(file: MappedFile, names: Mapping[str, str], rows: Iterable[Row]) -> Taken:
    """Apply a table to some tensors of a file.

    Args:
        file: the file.
        names: the names in the table's terms, by the names in the file. They differ by a prefix.
        rows: the table. Several rows may take parts of the same tensor.

    Raises:
        UnsupportedModelError: two tensors have the same name in diffusers.
    """
    table: dict[str, list[Row]] = {}
    for row in rows:
        table.setdefault(row.of, []).append(row)
    sources: dict[str, Source] = {}
    left_over = []
    for full, name in names.items():
        found = _found(table, name)
        if not found:
            left_over.append(full)
        for to, row in found:
            if to in sources:
                raise _twice(file, to, sources[to].name, full)
            sources[to] = _source(file, full, row)
    return Taken(sources=sources, left_over=left_over)


def _found(table: Mapping[str, Sequence[Row]], name: str) -> list[tuple[str, Row]]:
    """The rows for a tensor, with its names in diffusers. The longest module name that is in the table counts."""
    head, rest = name, ""
    while head:
        if head in table:
            return [(row.to + rest, row) for row in table[head]]
        head, _, last = head.rpartition(".")
        rest = f".{last}{rest}"
    return []


def _source(file: MappedFile, name: str, row: Row) -> Source:
    shape = file.header.tensors[name].shape
    if row.take is None:
        return Source(file=file, name=name, shape=shape)
    return Source(file=file, name=name, shape=row.take.shape(shape), arrange=row.take.arrange)


def _twice(file: MappedFile, to: str, first: str, second: str) -> UnsupportedModelError:
    path = file.header.path
    return UnsupportedModelError.expected(
        f"{path} contains {to} twice, as {first} and as {second}", "each tensor once", path=path
    )
