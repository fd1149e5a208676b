"""An ONNX graph under construction: nodes, constants and the weights that it names, without their values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdrt.errors import UnsupportedModelError
from sdrt_export.graphs.weights import Weight
from sdrt_export.tensors.array import Array, Shape

__all__ = ["FLOAT", "HALF", "MICROSOFT", "OPSET", "Dims", "Graph", "Place", "external"]

OPSET = 20
"""Opset 20 has Gelu. For opset 21, some of ONNX Runtime's providers lack kernels."""
MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
FLOAT: int = TensorProto.FLOAT
HALF: int = TensorProto.FLOAT16
_IR_VERSION = 10
# The largest networks here are SDXL's U-Net, with 2.6e9 weights, and its graph, with 4,000 nodes.
_MOST_WEIGHTS, _MOST_NODES = 16_000_000_000, 50_000
_NUMPY: dict[int, Any] = {FLOAT: np.float32, HALF: np.float16}
Dims = Sequence[int | str]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a weight's bytes are: in a file beside the graph, or under an address that the session is given."""

    location: str
    offset: int = 0
    length: int = 0


class Graph:
    """Collects the nodes of a graph. `compute` is the type that its activations have.

    A weight keeps the checkpoint's name. Nodes are named by the layer that they belong to, so that profiles can tell
    blocks apart, and values by the nodes that make them.
    """

    def __init__(self, name: str, compute: int = FLOAT) -> None:
        self.name, self.compute = name, compute
        self.weights: dict[str, Weight] = {}
        self.path = ""
        self._num_elements = 0
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._metadata: dict[str, str] = {}

    def op(self, kind: str, *inputs: str | None, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output. Return the output's name."""
        return self.ops(kind, *inputs, domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: str | None, domain: str = "", count: int = 1, **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node with `count` outputs. Return their names."""
        number = len(self._nodes)
        if number >= _MOST_NODES:
            raise self._too_large(f"{_MOST_NODES:,} operators")
        name = f"{self.path}/{kind}_{number}" if self.path else f"{kind}_{number}"
        outputs = [name if index == 0 else f"{name}.{index}" for index in range(count)]
        given = [one or "" for one in inputs]
        self._nodes.append(helper.make_node(kind, given, outputs, name=name, domain=domain, **attributes))
        return tuple(outputs)

    def weight(self, weight: Weight) -> str:
        """Name a weight. Return the name of its value."""
        if weight.name not in self.weights:
            self._num_elements += math.prod(weight.shape)
            if self._num_elements > _MOST_WEIGHTS:
                raise self._too_large(f"{_MOST_WEIGHTS:,} weights")
        known = self.weights.setdefault(weight.name, weight)
        assert (known.shape, known.sources) == (weight.shape, weight.sources), weight.name
        return weight.name

    @property
    def sources(self) -> dict[str, Shape]:
        """The checkpoint's tensors that the graph is made of, with their shapes."""
        return {name: shape for weight in self.weights.values() for name, shape in weight.sources.items()}

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Add a constant, once for equal ones."""
        array = np.asarray(value, dtype)
        key = f"constant.{array.dtype}.{array.shape}.{array.tobytes().hex()}"
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants[key].name

    def number(self, value: Any) -> str:
        """Add a constant in the type of the activations."""
        return self.constant(value, _NUMPY[self.compute])

    def cast(self, name: str, to: int) -> str:
        """The value in another type."""
        return self.op("Cast", name, to=to)

    def input(self, name: str, dims: Dims, dtype: int = FLOAT, default: Array | None = None) -> str:
        """Declare an input. With a `default`, callers may leave it out."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(dims)))
        if default is not None:
            self._constants[name] = numpy_helper.from_array(default, name)
        return name

    def output(self, name: str, value: str, dims: Dims) -> None:
        """Declare an output in float32, with the given value."""
        kind = "Identity" if self.compute == FLOAT else "Cast"
        attributes: dict[str, Any] = {} if self.compute == FLOAT else {"to": FLOAT}
        made = next((node for node in reversed(self._nodes) if value in node.output), None)
        if kind == "Identity" and made is not None and not self._is_output(value):
            self._rename(value, name)
        else:
            self._nodes.append(helper.make_node(kind, [value], [name], name=f"{name}/{kind}", **attributes))
        self._outputs.append(helper.make_tensor_value_info(name, FLOAT, list(dims)))

    def digest(self) -> str:
        """A text that differs for graphs with other operators, inputs, outputs, constants or weights."""
        found = hashlib.sha256()
        for parts in (self._nodes, self._inputs, self._outputs, self._constants.values()):
            for part in parts:
                found.update(part.SerializeToString(deterministic=True))
        found.update(repr([(one.name, one.shape, self.compute) for one in self.weights.values()]).encode())
        return found.hexdigest()

    def reads(self) -> list[tuple[str, tuple[str, ...]]]:
        """The operators, in order, with the names of their inputs."""
        return [(node.op_type, tuple(node.input)) for node in self._nodes]

    def describe(self, key: str, text: str) -> None:
        """Add an entry to the model's metadata."""
        self._metadata[key] = text

    def model(self, places: Mapping[str, Place], stored: Mapping[str, int]) -> onnx.ModelProto:
        """The finished model.

        Args:
            places: where each weight's bytes are.
            stored: the type that each weight is stored in. Where the graph wants another, a Cast follows, which ONNX
                Runtime folds when it loads the graph.
        """
        initializers, casts, wide = list(self._constants.values()), [], {}
        for name, weight in self.weights.items():
            initializers.append(external(name, stored[name], weight.shape, places[name]))
            wanted = FLOAT if weight.exact else self.compute
            if stored[name] != wanted:
                wide[name] = f"{name}.widened"
                casts.append(helper.make_node("Cast", [name], [wide[name]], name=f"{name}/Cast", to=wanted))
        nodes = [_rewired(node, wide) for node in self._nodes]
        _drop_unused_outputs(nodes, {info.name for info in self._outputs})
        graph = helper.make_graph([*casts, *nodes], self.name, self._inputs, self._outputs, initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="sdrt")
        helper.set_model_props(model, self._metadata)
        return model

    def _too_large(self, limit: str) -> UnsupportedModelError:
        component = self.name.split(" ")[0]
        return UnsupportedModelError.expected(
            f"{component}: its config.json describes a network of more than {limit}",
            "a network of at most that size: correct its numbers",
            component=component,
        )

    def _is_output(self, value: str) -> bool:
        return any(info.name == value for info in self._outputs)

    def _rename(self, old: str, new: str) -> None:
        for node in self._nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new


def external(name: str, dtype: int, shape: Sequence[int], place: Place) -> TensorProto:
    """An initializer whose bytes are elsewhere."""
    tensor = TensorProto(name=name, data_type=dtype, data_location=TensorProto.EXTERNAL)
    tensor.dims.extend(shape)
    entries = {"location": place.location}
    if place.length:
        entries |= {"offset": str(place.offset), "length": str(place.length)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _drop_unused_outputs(nodes: Sequence[onnx.NodeProto], results: set[str]) -> None:
    """Leave out optional outputs of ONNX Runtime's operators that nothing uses: kernels need not compute them."""
    used = results.union(*(node.input for node in nodes))
    for node in nodes:
        if node.domain == MICROSOFT and len(node.output) > 1:
            names = [name if name in used else "" for name in node.output]
            while not names[-1]:
                names.pop()
            node.output[:] = names


def _rewired(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for index, name in enumerate(copy.input):
        copy.input[index] = names.get(name, name)
    return copy
