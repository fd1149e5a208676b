"""The step graph: guidance, the scheduler's update, and the model's next input, for a loop in any language."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sdrt.schedulers.linear_steps import HISTORY, LinearStep

__all__ = ["FACTORS", "factors_of", "step_graph"]

_OPSET, _IR = 17, 8
FACTORS = ("term_latents", "term_output", "keep", "noise", "scale", *(f"term_{n}" for n in range(HISTORY)))
"""What the numbers of the input `factors` are, in order."""
_FLOAT = TensorProto.FLOAT
_IMAGES: list[str | int] = ["batch", "channels", "height", "width"]


def factors_of(step: LinearStep, following: LinearStep | None) -> list[float]:
    """A step's `FACTORS`. `scale` is for the latents that the model gets next; 1 after the last step."""
    scale = 1.0 if following is None else following.scale
    return [step.term_latents, step.term_output, step.keep, step.noise or 0.0, scale, *step.terms]


def step_graph(*, guided: bool) -> onnx.ModelProto:
    """The graph. With `guided`, the model's output has the rows without the prompt first, and then those with it.

    Inputs: `latents` [batch, …], `output` of the model [rows, …], `history` [HISTORY - 1, batch, …] with the newest
    term first, `noise` [batch, …], `factors` [len(FACTORS)] and, with `guided`, `guidance_scale`. Outputs:
    `next_latents`, `next_history`, and `next_sample` [rows, …] for the model.
    """
    nodes: list[NodeProto] = []
    constants = {f"at_{n}": np.array([n], np.int64) for n in range(len(FACTORS) + 1)}
    constants["to_images"] = np.array([1, 1, 1, 1], np.int64)
    constants["to_terms"] = np.array([-1, 1, 1, 1, 1], np.int64)
    constants["newest"] = np.array([HISTORY - 1], np.int64)

    def op(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def factor(name: str) -> str:
        place = FACTORS.index(name)
        part = op("Slice", ["factors", f"at_{place}", f"at_{place + 1}"], f"{name}_alone")
        return op("Reshape", [part, "to_images"], f"{name}_factor")

    rows = "output"
    if guided:
        nodes.append(helper.make_node("Split", ["output"], ["without", "with"], name="halves", axis=0))
        difference = op("Sub", ["with", "without"], "difference")
        rows = op("Add", ["without", op("Mul", [difference, "guidance_scale"], "weighted")], "guided")
    own = op("Mul", ["latents", factor("term_latents")], "of_latents")
    term = op("Add", [own, op("Mul", [rows, factor("term_output")], "of_output")], "term")
    terms = op("Concat", [op("Unsqueeze", [term, "at_0"], "newest_term"), "history"], "terms", axis=0)
    weights = op("Slice", ["factors", "at_5", f"at_{len(FACTORS)}"], "weights_alone")
    weights = op("Reshape", [weights, "to_terms"], "weights")
    total = op("ReduceSum", [op("Mul", [terms, weights], "weighted_terms"), "at_0"], "total", keepdims=0)
    kept = op("Mul", ["latents", factor("keep")], "kept")
    drawn = op("Mul", ["noise", factor("noise")], "drawn")
    op("Add", [op("Add", [kept, total], "moved"), drawn], "next_latents")
    op("Slice", [terms, "at_0", "newest"], "next_history")
    scaled = op("Mul", ["next_latents", factor("scale")], "scaled")
    op(
        "Concat" if guided else "Identity",
        [scaled, scaled] if guided else [scaled],
        "next_sample",
        **({"axis": 0} if guided else {}),
    )

    past: list[str | int] = [HISTORY - 1, *_IMAGES]
    value = helper.make_tensor_value_info
    inputs = [value("latents", _FLOAT, _IMAGES), value("output", _FLOAT, ["rows", *_IMAGES[1:]])]
    inputs += [value("history", _FLOAT, past), value("noise", _FLOAT, _IMAGES)]
    inputs += [value("factors", _FLOAT, [len(FACTORS)])]
    inputs += [value("guidance_scale", _FLOAT, [])] if guided else []
    outputs = [value("next_latents", _FLOAT, _IMAGES), value("next_history", _FLOAT, past)]
    outputs += [value("next_sample", _FLOAT, ["rows", *_IMAGES[1:]])]
    used = {name for node in nodes for name in node.input}
    weights_of = [numpy_helper.from_array(one, name) for name, one in constants.items() if name in used]
    graph = helper.make_graph(nodes, "step", inputs, outputs, weights_of)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(made, full_check=True)
    return made
