"""One tensor of an adapter's file, and the errors about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdrt.adapters.change import Shape
from sdrt.common.finite import is_finite
from sdrt.common.mapped_file import MappedFile
from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError

__all__ = ["Tensor"]

_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3"})
_AGAIN = "download the file again, or choose another"


@dataclass(frozen=True)
class Tensor:
    """A tensor that is read from the mapped file whenever it is asked for."""

    file: MappedFile
    key: str

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.file.header.tensors[self.key].shape

    def array(self) -> NDArray[np.float32]:
        """Its numbers in float32: a view of the mapped file if that has the same.

        Raises:
            UnsupportedModelError: the file changed since it was opened.
        """
        # float64 may become infinity, which was refused.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self.file.array(self.key), np.float32)

    def scalar(self) -> float:
        """Its one number, of any type.

        Raises:
            UnsupportedModelError: it has several, or is not finite.
        """
        if math.prod(self.shape) != 1:
            raise self.refused(f"is of shape {list(self.shape)}", "one number")
        value = float(self.file.array(self.key).reshape(()))
        if not math.isfinite(value):
            raise self.refused(f"is {value}", "a finite number")
        return value

    def check_numbers(self) -> None:
        """Check that the numbers are floats, and finite in float32. The shape was checked, so this takes little memory.

        Raises:
            UnsupportedModelError: they are not.
        """
        entry = self.file.header.tensors[self.key]
        if entry.dtype not in _FLOATS:
            raise self.refused(
                f"has the number type {brief(entry.dtype)}", "float16, bfloat16, float32 or float8"
            )
        # A signalling NaN of float64 is "invalid" in a cast.
        with np.errstate(over="ignore", invalid="ignore"):
            array = self.file.array(self.key)
            if not is_finite(array.astype(np.float32) if entry.dtype == "F64" else array):
                raise self.advised("contains NaN or infinity")

    def refused(self, problem: str, fits: str) -> UnsupportedModelError:
        """The error "FILE: KEY problem: expected fits"."""
        path = self.file.header.path
        return UnsupportedModelError.expected(f"{path}: {brief(self.key, 200)} {problem}", fits, path=path)

    def advised(self, problem: str) -> UnsupportedModelError:
        """The error "FILE: KEY problem", for a damaged file."""
        path = self.file.header.path
        return UnsupportedModelError.advised(f"{path}: {brief(self.key, 200)} {problem}", _AGAIN, path=path)
