"""The VAE in tiles, with the same result as without tiles. Each run sees a tile; intermediate results may be in files.

A group norm takes the mean and variance of the whole image. Tiles that use their own values, or estimates, are visible:
with a VAE of 3 million parameters, pixels are off by up to 79 levels of 255. So the exporter cuts the VAE at every
norm. All tiles go through a stage before the next stage begins. Meanwhile, sdrt gathers the mean and variance of its
output.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import IntegrityError, OutOfMemoryError
from sdrt.onnx.session import Component

__all__ = ["METADATA", "Stage", "StagedVae", "describe"]

Array = NDArray[np.float32]
METADATA = "sdrt.stages"

# The pixels of a tile where the image is largest. Stable Diffusion's VAE has 128 channels there, so a stage's input and
# output are 128 MB each. Other stages' tiles have as many numbers.
_TILE_PIXELS = 1 << 18
# The most scores of an attention between a tile and the whole image: 512 MB, if a provider stores them. Only its keys
# and values grow with the image: 6 KB for each of Stable Diffusion's latents, 0.4 GB at 2048x2048.
_SCORES = 1 << 27
# The most bytes of a stage's output that are kept in memory. Larger outputs are in a file.
_IN_MEMORY = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the VAE, from one group norm to the next.

    Attributes:
        name: the prefix of its inputs' names in the graph.
        channels: the number of channels of its output.
        halo: how many pixels around an input tile the output tile depends on.
        up, down: the factors by which it multiplies and divides height and width.
        groups: the number of groups of the norm that it begins with. 0 without a norm.
        residual: whether it adds the previous stage's input, as `skip`.
        whole: whether it also sees the whole input, as attention does.
    """

    name: str
    channels: int
    halo: int
    up: int = 1
    down: int = 1
    groups: int = 0
    residual: bool = False
    whole: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """Its inputs. `input` gives their names in the graph."""
        norm = ("mean", "variance") if self.groups else ()
        return ("sample", *norm, *(["skip"] if self.residual else []), *(["whole"] if self.whole else []))

    def input(self, name: str) -> str:
        """An input's name in the graph."""
        return f"{self.name}.{name}"

    @property
    def output(self) -> str:
        """Its output's name in the graph."""
        return f"{self.name}.out"

    def scaled(self, length: int) -> int:
        """The output's length for an input's length."""
        return length * self.up // self.down


def describe(stages: list[Stage]) -> str:
    """The stages as a text for the graph's metadata, under `METADATA`."""
    return json.dumps([asdict(stage) for stage in stages])


class StagedVae:
    """The VAE's encoder or decoder for one image [C, H, W], equal to the whole graph except for rounding.

    `tile` is the most numbers in a tile's input or output. By default they suffice for 512x512 pixels.
    """

    def __init__(self, component: Component, *, tile: int | None = None) -> None:
        self._component, self._stages = component, _read(component)
        self._tile = tile or _TILE_PIXELS * min(stage.channels for stage in self._stages[:-1])
        free = {name: spec.shape for name, spec in component.inputs.items()}
        # A run needs values for the inputs of every stage. Two pixels cost almost nothing.
        self._idle = {
            name: np.zeros([2 if isinstance(size, str) else size for size in shape], np.float32)
            for name, shape in free.items()
        }

    def __call__(self, array: Array) -> Array:
        """Run all stages. Raises `ComponentError` and `OutOfMemoryError`."""
        before, norm = array, _Norm(0)
        for stage, following in pairwise([*self._stages, Stage(name="", channels=0, halo=0)]):
            made = _room((stage.channels, *(stage.scaled(length) for length in array.shape[1:])))
            gathered = _Norm(following.groups)
            for tile in self._tiles(stage, array, before):
                out = self._run(stage, tile, array, before, norm)
                rows, columns = (_scaled(stage, line) for line in tile)
                made[:, rows, columns] = out
                gathered.add(out)
            before, array, norm = array, made, gathered
        return array

    def _tiles(self, stage: Stage, array: Array, before: Array) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the tiles of a stage's input. All begin at even places."""
        _, height, width = array.shape
        skipped = len(before) if stage.residual else 0
        pixel = max(len(array), skipped, stage.channels * stage.up**2 / stage.down**2)
        pixels = self._tile / pixel
        if stage.whole:
            pixels = min(pixels, _SCORES / (height * width))
        side = max(2, int(math.sqrt(pixels)) // 2 * 2)
        yield from product(_cut(height, side), _cut(width, side))

    def _run(
        self, stage: Stage, tile: tuple[slice, slice], array: Array, before: Array, norm: _Norm
    ) -> Array:
        """A stage's output for a tile, without the halo."""
        wide = [
            slice(max(0, line.start - stage.halo), min(length, line.stop + stage.halo))
            for line, length in zip(tile, array.shape[1:], strict=True)
        ]
        place = (np.newaxis, slice(None), *wide)
        feeds = {"sample": array[place]}
        if stage.groups:
            feeds |= norm.feeds()
        if stage.residual:
            feeds["skip"] = before[place]
        if stage.whole:
            feeds["whole"] = array[np.newaxis]
        given = {stage.input(name): np.ascontiguousarray(value) for name, value in feeds.items()}
        out = self._component.run(self._idle | given, stage.output)[0]
        inner = (
            _scaled(stage, slice(line.start - more.start, line.stop - more.start))
            for line, more in zip(tile, wide, strict=True)
        )
        rows, columns = inner
        cut: Array = out[:, rows, columns]
        self._component.check_finite(stage.output, cut)
        return cut


class _Norm:
    """Mean and variance of each group of channels, gathered tile by tile (Chan, Golub and LeVeque 1979)."""

    def __init__(self, groups: int) -> None:
        self._groups, self._count = groups, 0
        self._mean = np.zeros(groups)
        self._squares = np.zeros(groups)

    def add(self, tile: Array) -> None:
        """Add the numbers of a tile [C, h, w]."""
        if not self._groups:
            return
        rows = tile.reshape(self._groups, -1)
        count = rows.shape[1]
        mean = rows.mean(axis=1, dtype=np.float64)
        squares = np.array([_squares(row, middle) for row, middle in zip(rows, mean, strict=True)])
        total, apart = self._count + count, mean - self._mean
        self._squares += squares + apart**2 * self._count * count / total
        self._mean += apart * count / total
        self._count = total

    def feeds(self) -> dict[str, Array]:
        """The mean and variance, as inputs of a stage."""
        variance = self._squares / self._count
        return {"mean": self._mean.astype(np.float32), "variance": variance.astype(np.float32)}


def _squares(row: Array, middle: float) -> float:
    apart = row - np.float32(middle)
    return float(np.dot(apart, apart))


def _cut(length: int, side: int) -> list[slice]:
    """Cut a line into even pieces of at most `side`, which begin at even places."""
    count = -(-length // side)
    step = -(-length // (2 * count)) * 2
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _scaled(stage: Stage, line: slice) -> slice:
    return slice(stage.scaled(line.start), stage.scaled(line.stop))


def _room(shape: tuple[int, ...]) -> Array:
    """An array for a stage's output. A large one is in an unnamed file, which is deleted with the array."""
    size = math.prod(shape) * 4
    if size <= _IN_MEMORY:
        return np.empty(shape, np.float32)
    folder = tempfile.gettempdir()
    try:
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=folder) as file:
            if reserve := getattr(os, "posix_fallocate", None):
                # Otherwise a write would end the process if other programs fill the disk meanwhile.
                reserve(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "r+" if reserve else "w+", shape=shape)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"{size / 1e9:.1f} GB of a file cannot be mapped") from error
        raise OutOfMemoryError(
            f"vae: an image of this size needs up to three files of {size / 1e9:.1f} GB in {folder}, which has no "
            f"room for them ({error.strerror or error}): set TMPDIR to a folder on a larger disk, or make a smaller "
            "image",
            component="vae",
            path=Path(folder),
            fits="a TMPDIR on a larger disk, or a smaller image",
        ) from error


def _read(component: Component) -> list[Stage]:
    """The stages in the graph's metadata. Raises `IntegrityError` if there are none."""
    try:
        stages = [Stage(**row) for row in json.loads(component.metadata[METADATA])]
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError.advised(
            f"{component.name}: the graph's metadata has no stages",
            "export the model again",
            component=component.name,
        ) from error
    inputs = {stage.input(name) for stage in stages for name in stage.takes}
    component.require(sorted(inputs), [stage.output for stage in stages])
    return stages
