"""Weights that are not finite are refused, and names and shapes are known without reading a weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sdrt.errors import IntegrityError
from sdrt_export.checkpoints.random import RandomTensors
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.finite import FiniteTensors
from sdrt_export.tensors.lazy import LazyTensors

SIZE = (1 << 18) + 7  # more than one block


class Counted(LazyTensors):
    """Counts how often each tensor is made."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()

    def __getitem__(self, name: str) -> Array:
        self.made[name] += 1
        return np.ones(3, np.float32)

    def shape(self, name: str) -> Shape:
        return (3,)

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "b"])

    def __len__(self) -> int:
        return 2

    def __contains__(self, name: Any) -> bool:
        return name in ("a", "b")


def test_a_look_whether_a_tensor_is_there_reads_none() -> None:
    counted = Counted()
    tensors = FiniteTensors("unet", counted)
    assert "a" in tensors
    assert "c" not in tensors
    assert tensors.shape("b") == (3,)
    assert not counted.made
    assert tensors["a"].sum() == 3
    assert counted.made == {"a": 1}


def test_a_look_whether_a_random_tensor_is_there_draws_none() -> None:
    tensors = RandomTensors({"large": (1 << 40,)}, seed=0)
    assert "large" in tensors
    assert "small" not in tensors


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, SIZE - 1])
def test_a_number_that_is_not_finite_is_refused(dtype: Any, wrong: float, place: int) -> None:
    array = np.zeros(SIZE, dtype)
    array[place] = wrong
    with pytest.raises(IntegrityError, match=r"unet: the weight w contains NaN or infinity"):
        FiniteTensors("unet", {"w": array})["w"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_finite_number_is_taken(dtype: Any) -> None:
    about = np.finfo(dtype)
    array = np.array([about.max, about.min, about.smallest_subnormal, -about.tiny, 0.0, -0.0], dtype)
    np.testing.assert_array_equal(FiniteTensors("unet", {"w": array})["w"], array)
    assert FiniteTensors("unet", {"w": array[:0]})["w"].size == 0


def test_all_bits_of_float16_are_judged_as_numpy_does() -> None:
    for bits in range(1 << 16):
        array = np.array([bits], np.uint16).view(np.float16)
        try:
            FiniteTensors("unet", {"w": array})["w"]
        except IntegrityError:
            assert not np.isfinite(array[0])
        else:
            assert np.isfinite(array[0])
