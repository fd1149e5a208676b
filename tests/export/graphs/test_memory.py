"""Graphs with weights in memory: the same results as those in files, without copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from sdrt.errors import IntegrityError
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.graphs.files import write_graphs
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.memory import Once, bind
from tests.export.built import UNET

Array = np.ndarray[Any, Any]


def make(layers: type[Layers]) -> Graph:
    graph = Graph("unet")
    unet(UNetConfig.of(UNET), layers(graph))
    return graph


def random_tensors(graph: Graph, dtype: Any) -> dict[str, Array]:
    random = np.random.default_rng(0)
    shapes = {name: shape for weight in graph.weights.values() for name, shape in weight.sources.items()}
    return {name: (0.1 * random.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def feeds() -> dict[str, Array]:
    random = np.random.default_rng(1)
    made = {"sample": random.standard_normal((2, 4, 9, 11)), "timestep": np.array(451.0)}
    made["encoder_hidden_states"] = random.standard_normal((2, 5, 24))
    return {name: value.astype(np.float32) for name, value in made.items()}


def session(content: str | bytes, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("layers", [Layers, FusedLayers])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_session_has_the_bits_of_an_exported_file(layers: type[Layers], dtype: Any, tmp_path: Path) -> None:
    graph = make(layers)
    tensors = random_tensors(graph, dtype)
    write_graphs(tmp_path, {"model.onnx": graph}, tensors)
    (expected,) = session(str(tmp_path / "model.onnx")).run(None, feeds())
    bound = bind(graph, tensors, portable=layers is Layers)
    options, values = ort.SessionOptions(), bound.values()
    options.add_external_initializers(list(values), list(values.values()))
    (found,) = session(bound.content(), options).run(None, feeds())
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_a_single_use_differs_only_by_the_order_of_sums(dtype: Any, tmp_path: Path) -> None:
    graph = make(FusedLayers)
    tensors = random_tensors(graph, dtype)
    write_graphs(tmp_path, {"model.onnx": graph}, tensors)
    (expected,) = session(str(tmp_path / "model.onnx")).run(None, feeds())
    once = Once(bind(graph, tensors))
    (found,) = once.run(["out_sample"], feeds())
    # The layout of convolutions is another: 4e-7 was measured.
    assert np.abs(found - expected).max() < 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_are_views_of_the_tensors(dtype: Any) -> None:
    graph = make(FusedLayers)
    tensors = random_tensors(graph, dtype)
    bound = bind(graph, tensors)
    assert bound.weights.keys() == tensors.keys()
    assert all(np.shares_memory(bound.weights[name], tensor) for name, tensor in tensors.items())


def test_a_portable_model_has_standard_operators() -> None:
    graph = make(Layers)
    model = bind(graph, random_tensors(graph, np.float32), portable=True).model
    assert {node.domain for node in model.graph.node} == {""}
    assert [opset.domain for opset in model.opset_import] == [""]


def test_what_does_not_belong_together_is_refused_by_name() -> None:
    graph = make(FusedLayers)
    tensors = random_tensors(graph, np.float32)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    with pytest.raises(IntegrityError, match=f"lack {name}"):
        bind(graph, {key: value for key, value in tensors.items() if key != name})
    with pytest.raises(IntegrityError, match=rf"{name} is of shape \[32, 31\]"):
        bind(graph, tensors | {name: tensors[name][:, 1:]})
