"""Buffers of two components: an output that is written where another component reads it."""

from __future__ import annotations

import numpy as np
import pytest

from sdrt.onnx.buffers import Bound
from sdrt.onnx.session import Component

SHAPES = {"sample": (2, 4, 8, 8), "timestep": (), "encoder_hidden_states": (2, 5, 32)}


@pytest.fixture
def shapes(unet: Component) -> dict[str, tuple[int, ...]]:
    width = unet.inputs["encoder_hidden_states"].shape[-1]
    return SHAPES | {"encoder_hidden_states": (2, 5, int(width))}


def fill(run: Bound, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        run.set(name, random.standard_normal(shape, np.float32))


def test_an_output_is_written_where_it_is_read(unet: Component, shapes: dict[str, tuple[int, ...]]) -> None:
    with unet.bound(shapes, ["out_sample"]) as first, unet.bound(shapes, ["out_sample"]) as second:
        fill(first, shapes, 1)
        fill(second, shapes, 2)
        wanted = first()["out_sample"].copy()
        second.set("sample", wanted)
        after = second()["out_sample"].copy()
        fill(second, shapes, 2)
        for _ in range(2):
            assert first.write_to("out_sample", second, "sample")
            assert first() == {}
            np.testing.assert_array_equal(second.inputs["sample"], wanted)
            np.testing.assert_array_equal(second()["out_sample"], after)
            first.write_here()
            second.set("sample", np.zeros_like(wanted))
            np.testing.assert_array_equal(first()["out_sample"], wanted)
            assert not second.inputs["sample"].any()


def test_buffers_that_cancelled_work_may_write_to_are_not_reused(
    unet: Component, shapes: dict[str, tuple[int, ...]]
) -> None:
    with unet.bound(shapes, ["out_sample"]) as second, unet.bound(shapes, ["out_sample"]) as first:
        first.write_to("out_sample", second, "sample")
        first.in_use = True  # as after a cancelled run
        first.write_here()
    with unet.bound(shapes, ["out_sample"]) as one, unet.bound(shapes, ["out_sample"]) as other:
        assert {one, other}.isdisjoint({first, second})
