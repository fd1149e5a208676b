"""Weights in 8 bits, computed in float32: ONNX Runtime gets the products of what was stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdrt_export.graphs.stored import StoredGraph
from sdrt_export.weight_only import quantize_weights

Array = np.ndarray[Any, Any]


def written(
    folder: Path, nodes: list[Any], weights: dict[str, Array], inputs: dict[str, tuple[int, list[Any]]]
) -> Path:
    """A graph whose output is "y"."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *about) for name, about in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    stored = StoredGraph(model)
    quantize_weights(stored)
    stored.save(folder / "model.onnx")
    return folder / "model.onnx"


def run(path: Path, feeds: dict[str, Array]) -> Array:
    made: Array = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    return made


# Less than a block, a whole number of blocks, and a part of one at the end.
@pytest.mark.parametrize("inputs", [7, 128, 100])
def test_a_product_is_that_of_weights_within_half_a_step(tmp_path: Path, inputs: int) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((inputs, 24), np.float32)
    weight[:, 3] = 0
    x = random.standard_normal((2, 5, inputs), np.float32)
    path = written(
        tmp_path,
        [helper.make_node("MatMul", ["x", "w.weight"], ["y"])],
        {"w.weight": weight},
        {"x": (TensorProto.FLOAT, ["b", "s", inputs])},
    )
    graph = StoredGraph.read(path)
    assert graph.dtype("w.weight") == np.uint8
    scales = graph.array("w.weight.scale")
    assert scales.shape == (24, -(-inputs // 64))
    made = run(path, {"x": x})
    assert not made[..., 3].any()
    # Each weight is at most half a step away.
    most = np.abs(x).sum(-1)[..., np.newaxis] * scales.max(1) / 2
    assert (np.abs(made - x @ weight) <= most + 1e-5).all()
    # What is stored is what is multiplied: activations are not rounded.
    stored = (graph.array("w.weight").astype(np.float32) - 128) * scales[..., np.newaxis]
    np.testing.assert_allclose(made, x @ stored.reshape(24, -1)[:, :inputs].T, atol=2e-5)


def test_rows_of_a_table_have_a_scale_each(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = (
        random.standard_normal((300, 16), np.float32) * np.geomspace(1e-4, 10, 300, dtype=np.float32)[:, None]
    )
    table[7] = 0
    nodes = [helper.make_node("Gather", ["t.weight", "ids"], ["y"], axis=0)]
    path = written(tmp_path, nodes, {"t.weight": table}, {"ids": (TensorProto.INT64, ["n"])})
    assert StoredGraph.read(path).dtype("t.weight") == np.int8
    ids = np.array([0, 7, 299, 299])
    made = run(path, {"ids": ids})
    assert not made[1].any()
    for row, number in zip(made, ids, strict=True):
        np.testing.assert_allclose(row, table[number], atol=np.abs(table[number]).max() / 127 / 2 * 1.001)


def test_a_weight_that_two_operators_read_stays(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weight, x = random.standard_normal((16, 16), np.float32), random.standard_normal((2, 16), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w.weight"], ["once"]),
        helper.make_node("MatMul", ["once", "w.weight"], ["y"]),
    ]
    path = written(tmp_path, nodes, {"w.weight": weight}, {"x": (TensorProto.FLOAT, ["n", 16])})
    np.testing.assert_allclose(run(path, {"x": x}), x @ weight @ weight, rtol=1e-4, atol=1e-4)


def test_small_tables_and_products_of_two_activations_stay(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["p.weight", "ids"], ["rows"], axis=0),
        helper.make_node("Transpose", ["rows"], ["columns"]),
        helper.make_node("MatMul", ["rows", "columns"], ["y"]),
    ]
    table = np.ones((77, 4), np.float32)
    path = written(tmp_path, nodes, {"p.weight": table}, {"ids": (TensorProto.INT64, ["n"])})
    graph = StoredGraph.read(path)
    assert [node.op_type for node in graph.nodes] == ["Gather", "Transpose", "MatMul"]
    assert graph.dtype("p.weight") == np.float32
