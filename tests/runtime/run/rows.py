"""Counts the rows that the denoiser computes in each of its calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sdrt.onnx.buffers import Bound

__all__ = ["counted_rows"]


@contextmanager
def counted_rows(component: str = "unet") -> Iterator[list[int]]:
    """Within this block, a list of the batch sizes of every call of a component, as ONNX Runtime gets them."""
    rows: list[int] = []
    run = Bound.__call__

    def counting(bound: Bound) -> Any:
        if bound._component.name == component:
            rows.append(bound.shape("sample")[0])
        return run(bound)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bound, "__call__", counting)
        yield rows
