"""Kernels in blocks: the same bits, and each image is reordered once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper
from safetensors.numpy import save_file

from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt_export.graphs import blocks
from sdrt_export.graphs.blocks import block_size, in_blocks, kernels_for_blocks, use_blocks
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import FLOAT, HALF, Graph, Place
from sdrt_export.graphs.in_place import bind_in_place
from sdrt_export.graphs.values import Value
from sdrt_export.tensors.lazy import Tensors

Array = np.ndarray[Any, Any]
SIZE = block_size()
needs_blocks = pytest.mark.skipif(not SIZE, reason="ONNX Runtime has no blocks for this CPU")


def network(compute: int = FLOAT) -> Graph:
    """Convolutions after one another, of one image, with strides, and with channels that fill no block."""
    graph = Graph("network", compute)
    layers = FusedLayers(graph)
    x = layers.image_input("x", 4)
    first = layers.conv("first", x, 64)
    second = layers.conv("second", first, 32)
    side = layers.conv("side", first, 32, kernel=1, bias=False)
    half = layers.conv("half", layers.add(second, side), 64, stride=2)
    last = layers.conv("last", Value(64, graph.op("Exp", half.name)), 20)
    layers.image_output("half", half, ("h", "w"))
    layers.image_output("y", last, ("h", "w"))
    return graph


def tensors(graph: Graph) -> dict[str, Array]:
    source = np.random.default_rng(0)
    return {name: source.standard_normal(one.shape, np.float32) for name, one in graph.weights.items()}


def model(graph: Graph, weights: dict[str, Array]) -> onnx.ModelProto:
    """The graph with weights inside."""
    whole = graph.model(dict.fromkeys(weights, Place(location="inside")), dict.fromkeys(weights, FLOAT))
    constants = [one for one in whole.graph.initializer if one.data_location != TensorProto.EXTERNAL]
    inside = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    del whole.graph.initializer[:]
    whole.graph.initializer.extend([*constants, *inside])
    return whole


def results(content: bytes) -> list[Array]:
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 11), np.float32)
    return list(ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x}))


@needs_blocks
def test_convolutions_in_blocks_give_the_same_bits() -> None:
    graph = network()
    weights = tensors(graph)
    plain = model(graph, weights)
    kernels = kernels_for_blocks(graph, SIZE)
    assert kernels == {"second.weight": 32, "side.weight": 32, "half.weight": 64}
    blocked = model(
        graph,
        {name: in_blocks(one, SIZE) if name in kernels else one for name, one in weights.items()},
    )
    use_blocks(blocked, kernels)
    for one, other in zip(
        results(plain.SerializeToString()), results(blocked.SerializeToString()), strict=True
    ):
        np.testing.assert_array_equal(one, other, strict=True)


@needs_blocks
def test_an_image_goes_into_blocks_once() -> None:
    graph = network()
    blocked = model(graph, tensors(graph))
    use_blocks(blocked, kernels_for_blocks(graph, SIZE))
    reordered = [node.input[0] for node in blocked.graph.node if node.op_type == "ReorderInput"]
    assert len(reordered) == len(set(reordered)) == 2


def run_in_session(memory: MemoryGraph, feed: Array) -> Array:
    config = SessionConfig(provider="cpu", tune=False)
    return Component("network", memory.folder, config, Notices(), memory=memory).run({"x": feed}, "y")


@needs_blocks
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("is_in_file", [True, False])
def test_a_session_of_a_checkpoint_gets_kernels_in_blocks(
    is_in_file: bool, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads those beside a file where they are, and copies them if no weight is in a file."""
    graph = network()
    weights = {name: one.astype(kind) for name, one in tensors(graph).items()}
    save_file(weights, tmp_path / "a.safetensors")
    given = Tensors.of_files([tmp_path / "a.safetensors"]) if is_in_file else weights
    memory = bind_in_place(graph, given, turned=True)
    assert memory.on_cpu is not None
    made = memory.on_cpu()
    kernels = kernels_for_blocks(graph, SIZE)
    assert kernels.keys() <= made.values.keys()
    assert (kernels.keys() <= made.uncopied) == is_in_file
    feed = np.random.default_rng(1).standard_normal((2, 4, 9, 11), np.float32)
    blocked = run_in_session(memory, feed)
    monkeypatch.setattr("sdrt_export.graphs.in_place.block_size", lambda: 0)
    np.testing.assert_array_equal(blocked, run_in_session(memory, feed), strict=True)


@needs_blocks
def test_too_little_memory_for_blocks_names_the_component(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Array:
        raise MemoryError("64 bytes")

    monkeypatch.setattr("sdrt_export.graphs.in_place.in_blocks", fail)
    graph = network()
    memory = bind_in_place(graph, tensors(graph), turned=True)
    with pytest.raises(OutOfMemoryError, match="network ran out of memory on cpu"):
        run_in_session(memory, np.zeros((1, 4, 8, 8), np.float32))


def test_kernels_that_something_else_reads_stay() -> None:
    graph = network()
    graph.op("Identity", "second.weight")
    assert "second.weight" not in kernels_for_blocks(graph, 8)


def test_networks_whose_activations_are_joined_with_convolutions_stay() -> None:
    graph = network()
    graph.op("Relu", "x")
    assert kernels_for_blocks(graph, 8) == {}


def test_graphs_in_float16_have_no_blocks() -> None:
    assert kernels_for_blocks(network(HALF), 8) == {}


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_blocks_have_channels_innermost(kind: Any) -> None:
    kernel = np.arange(16 * 8 * 3 * 3).reshape(16, 8, 3, 3).astype(kind)
    made = in_blocks(kernel, 8)
    assert (made.shape, made.dtype) == (kernel.shape, np.float32)
    apart = made.reshape(2, 1, 3, 3, 8, 8)
    assert apart[1, 0, 2, 1, 5, 3] == kernel[8 + 3, 5, 2, 1]


def test_without_the_operators_there_are_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(blocks, "_run", refuse)
    monkeypatch.setattr(blocks, "FAILURES", (RuntimeError,))
    assert block_size.__wrapped__() == 0
