"""The shapes of a component's tensors by name, with errors that say what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError
from sdrt_export.tensors.array import Shape

__all__ = ["CONFIG_REMEDY", "Shapes", "heads_of"]

CONFIG_REMEDY = "give the configs with --config FOLDER"
# Stable Diffusion 2, SDXL and all of CLIP. Only Stable Diffusion 1 and the upscaler count heads instead.
_HEAD_SIZE = 64


class Shapes:
    """The shapes of the tensors of the component `part` in the file `path`."""

    def __init__(self, path: Path, part: str, shapes: Mapping[str, Shape]) -> None:
        self.path, self.part, self._shapes = path, part, shapes

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def of(self, name: str, axes: int) -> Shape:
        """The shape of a tensor that must have `axes` axes.

        Raises:
            UnsupportedModelError: it is missing, or has another number of axes.
        """
        shape = self._shapes.get(name)
        if shape is None:
            raise self.refused(f"lacks {name}", "a whole model")
        if len(shape) != axes or not all(shape):
            raise self.refused(
                f"has {brief(name)} of shape {list(shape)}", f"{axes} axes, none of them empty"
            )
        return shape

    def axes(self, name: str) -> int:
        """How many axes a tensor has. 0 if it is missing."""
        return len(self._shapes.get(name, ()))

    def counted(self, pattern: str) -> int:
        """The number of tensors that are named `pattern` with 0, 1, 2 … in place of {}."""
        return next(index for index in count() if pattern.format(index) not in self._shapes)

    def refused(self, problem: str, fits: str) -> UnsupportedModelError:
        """The error for a component that does not fit."""
        return UnsupportedModelError.expected(
            f"{self.path}: the {self.part} {problem}", fits, path=self.path, component=self.part
        )


def heads_of(shapes: Shapes, width: int) -> int:
    """How many heads an attention of this width has, if its heads are 64 wide. The tensors do not show it."""
    if width % _HEAD_SIZE:
        raise shapes.refused(
            f"has an attention of width {width}",
            f"a multiple of {_HEAD_SIZE}, the width of a head in models of this kind; for others, {CONFIG_REMEDY}",
        )
    return width // _HEAD_SIZE
