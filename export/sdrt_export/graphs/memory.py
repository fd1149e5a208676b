"""Runs graphs whose weights are a checkpoint's tensors in memory. Nothing is written.

A matrix that MatMul would take transposed goes in as the checkpoint has it, because FusedMatMul transposes it while it
computes, with the same bits. So of a mapped file, only joined and padded weights are copied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from sdrt.onnx.engine import ort
from sdrt_export.graphs.graph import FLOAT, MICROSOFT, Graph, Place
from sdrt_export.graphs.weights import Weight
from sdrt_export.tensors.array import Array
from sdrt_export.tensors.stored import Stored, stored

__all__ = ["Bound", "Once", "bind", "ort_value", "turn"]

_PLACE = Place(location="memory")


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A model, and the weights that it names.

    `weights` are contiguous, and views of the checkpoint's tensors where no number had to move. `types` are ONNX's
    numbers of their types; weights of types that NumPy lacks (bfloat16, float8) are bits. Give them to
    ``SessionOptions.add_external_initializers`` as `values`. ONNX Runtime copies them when it makes the session.
    """

    model: onnx.ModelProto
    weights: Mapping[str, Array]
    types: Mapping[str, int]

    def content(self) -> bytes:
        """The model as a session takes it."""
        content: bytes = self.model.SerializeToString()
        return content

    def values(self) -> dict[str, Any]:
        """The weights as ONNX Runtime's values, which do not copy them."""
        return {name: ort_value(array, self.types[name]) for name, array in self.weights.items()}


def bind(graph: Graph, tensors: Mapping[str, Array], *, portable: bool = False) -> Bound:
    """Take a graph's weights from a checkpoint's `tensors`.

    Narrow types stay as they are: the graph widens them, and ONNX Runtime does so once when it makes the session. With
    `portable`, MatMul remains, for providers that have standard operators only, and its weights are copied.

    Raises:
        IntegrityError: a tensor is missing, or has another shape than the config says.
    """
    turned = {name for name, weight in graph.weights.items() if weight.is_transposed and not portable}
    kept = {name: _held(weight, tensors, as_stored=name in turned) for name, weight in graph.weights.items()}
    types = {name: one.dtype for name, one in kept.items()}
    model = graph.model(dict.fromkeys(kept, _PLACE), types)
    turn(model, turned)
    weights = {name: np.ascontiguousarray(one.array) for name, one in kept.items()}
    return Bound(model=model, weights=weights, types=types)


def ort_value(array: Array, dtype: int | None = None) -> Any:
    """An array as ONNX Runtime's value, without a copy. The caller keeps the array. Bits are of ONNX's type `dtype`."""
    if dtype is not None and array.dtype.kind == "u":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, dtype)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _held(weight: Weight, tensors: Mapping[str, Array], *, as_stored: bool) -> Stored:
    """A weight in the type of its tensors; in float32 if they differ."""
    parts = [stored(tensors, name) for name in weight.sources if name in tensors]
    if len({one.dtype for one in parts}) != 1 or len(parts) != len(weight.sources):
        return Stored(array=weight.value(tensors).astype(np.float32), dtype=FLOAT)
    arrays = weight.parts({name: one.array for name, one in zip(weight.sources, parts, strict=True)})
    return Stored(array=arrays[0] if as_stored else weight.arrange(arrays), dtype=parts[0].dtype)


def turn(model: onnx.ModelProto, turned: Collection[str]) -> None:
    """Let the products with `turned` weights take them as the checkpoint has them."""
    for tensor in model.graph.initializer:
        if tensor.name in turned:
            tensor.dims[:] = tensor.dims[::-1]
    widened = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    for node in model.graph.node:
        if len(node.input) > 1 and widened.get(node.input[1], node.input[1]) in turned:
            assert node.op_type == "MatMul", node
            node.op_type, node.domain = "FusedMatMul", MICROSOFT
            node.attribute.append(helper.make_attribute("transB", 1))
    if turned and not any(opset.domain == MICROSOFT for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


class Once:
    """A graph on the CPU for a few runs, whose weights stay where they are.

    They are inputs of the graph, so ONNX Runtime neither copies nor packs them, and widens a float16 weight right
    before its layer. Opening a full-size U-Net takes 0.1 s and running it 70 MB of memory of its own.
    """

    def __init__(self, bound: Bound) -> None:
        """Open a graph. It changes the model of `bound`."""
        self.inputs = [value.name for value in bound.model.graph.input]
        _weights_as_inputs(bound)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Nodes run in the order of the graph, as soon as they can. An optimiser's new nodes would come last, and all
        # casts before them. By default, values that nothing else needs are computed last, and kept until then.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        # For a few runs, threads that wait would take more time than they save.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._weights = bound.values()
        self._arrays = bound.weights
        self._session = ort.InferenceSession(bound.content(), options, providers=["CPUExecutionProvider"])

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Compute `outputs`. Other `feeds` than the graph's `inputs` are left out."""
        given = {
            name: ort_value(np.ascontiguousarray(array))
            for name, array in feeds.items()
            if name in self.inputs
        }
        made = self._session.run_with_ort_values(list(outputs), self._weights | given)
        return [value.numpy() for value in made]


def _weights_as_inputs(bound: Bound) -> None:
    """Declare weights as inputs, and cast each right before its first use."""
    graph = bound.model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in bound.weights]
    graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if tensor.name in bound.weights
    )
    casts = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in bound.weights
    }
    nodes = []
    for node in graph.node:
        if node.output[0] not in casts:
            nodes += [casts.pop(name) for name in node.input if name in casts]
            nodes.append(node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
