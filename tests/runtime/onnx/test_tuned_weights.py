"""Which weights of a tuned graph can be changed there: those whose place is beyond doubt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdrt.onnx.graph_file import ElsewhereWeight, GraphFile, Node
from sdrt.onnx.tuned_weights import TunedWeight, tuned_weights


def graph_of(*nodes: Node, **weights: tuple[int, ...]) -> GraphFile:
    made = {
        name.replace("__", "."): ElsewhereWeight(shape=shape, dtype=1, location="weights", offset=0)
        for name, shape in weights.items()
    }
    return GraphFile(path=Path("graph.onnx"), nodes=list(nodes), elsewhere=made)


CONVOLUTION = Node(op="Conv", name="conv", inputs=("x", "w"), outputs=("y",))
REORDERED = Node(op="Conv", name="conv_nchwc", inputs=("x", "reorder"), outputs=("y",))


@pytest.mark.parametrize(("zeros", "known"), [(False, True), (True, False)])
def test_a_kernel_counts_only_if_its_arrangement_can_be_seen(zeros: bool, known: bool) -> None:
    shape = (16, 16, 3, 3)
    kernel = np.zeros(shape, np.float32) if zeros else np.random.default_rng(0).random(shape, np.float32)
    stored = TunedWeight("reorder", 16, True)
    found = tuned_weights(
        graph_of(CONVOLUTION, w=shape),
        lambda _: kernel,
        graph_of(REORDERED, reorder=shape),
        lambda _: stored(kernel),
    )
    assert found == ({"w": stored} if known else {})


def test_a_weight_that_is_stored_for_each_reader_is_not_changed() -> None:
    shape = (16, 16, 3, 3)
    kernel = np.random.default_rng(0).random(shape, np.float32)
    stored, adding = TunedWeight("reorder", 8, True), Node(op="Add", inputs=("z", "w"), outputs=("sum",))
    found = tuned_weights(
        graph_of(CONVOLUTION, adding, w=shape),
        lambda _: kernel,
        graph_of(REORDERED, adding, reorder=shape, w=shape),
        lambda name: kernel if name == "w" else stored(kernel),
    )
    assert found == {}
