"""Arranged weights: splitting one gives the tensors that it was made of, and a manifest keeps how."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sdrt.adapters.arrangement import Arrangement, AsItIs, ByHead, ChannelsLast, Transposed, arrangement_of


@pytest.mark.parametrize(
    ("arrangement", "shapes"),
    [
        (AsItIs(), [(4,)]),
        (AsItIs(), [(4, 3, 2, 2)]),
        (Transposed(), [(4, 3)]),
        (ChannelsLast(), [(4, 3, 1, 1)]),
        (ChannelsLast(1), [(4, 3, 3, 3)]),
        (ByHead(2), [(4, 3)] * 3),
        (ByHead(2), [(4,)] * 2),
        (ByHead(1), [(4, 3)]),
    ],
)
def test_a_weight_is_split_into_its_tensors(arrangement: Arrangement, shapes: list[tuple[int, ...]]) -> None:
    source = np.random.default_rng(0)
    tensors = [source.standard_normal(shape).astype(np.float32) for shape in shapes]
    weight = arrangement(tensors)
    again = arrangement_of(json.loads(json.dumps(arrangement.entry())))
    assert again == arrangement
    assert again.split_shape(weight.shape, len(tensors)) == shapes[0]
    for part, tensor in zip(again.split(weight, len(tensors)), tensors, strict=True):
        np.testing.assert_array_equal(part, tensor)


def test_rows_lie_by_head() -> None:
    """Queries and keys of two heads of two rows: as the kernels take them."""
    queries, keys = (np.arange(4.0).reshape(4, 1) + 10 * number for number in range(2))
    assert ByHead(2)([queries, keys]).tolist() == [[0, 1, 10, 11, 2, 3, 12, 13]]
