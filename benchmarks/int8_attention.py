"""This command compares attention in int8, product by product, with the fused operator in float32.

    python -m benchmarks int8-attention [--rounds 5] [--json FILE]

The shapes are those of SD 1.5's U-Net at 512x512 with guidance. In int8, queries and keys, and then probabilities and
values too, have one scale each. `MatMulIntegerToFloat` multiplies them, as in linear layers. The operator in float32 is
`MultiHeadAttention`. Each runs once, in turn. Ratios are taken within a round. The error is the norm of the difference
over the norm of the float32 output. docs/int8.md says what the project decided.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, save

from benchmarks.command_line import parser_of
from benchmarks.measure import device as machine
from benchmarks.measure import markdown, spread
from sdrt.common.notices import Notices
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component

ROWS = 2  # with guidance
SHAPES = ((4096, 4096, 8, 40), (1024, 1024, 8, 80), (256, 256, 8, 160), (4096, 77, 8, 40))
"""Number of queries, number of keys, heads, and width of a head."""
FUSED, SCORES, BOTH = "fused float32", "QKᵀ in int8", "QKᵀ and PV in int8"
Array = np.ndarray[Any, Any]


def graph(way: str, heads: int, width: int, spans: Sequence[float]) -> Any:
    """A graph from `q`, `k`, `v` `[rows, tokens, heads * width]` to `y`. `spans` are their largest magnitudes."""
    if way == FUSED:
        attributes = {"num_heads": heads, "scale": width**-0.5}
        nodes = [
            helper.make_node("MultiHeadAttention", [*"qkv"], ["y"], domain="com.microsoft", **attributes)
        ]
        return _model(nodes, {})
    numbers = {f"{name}_scale": np.float32(span / 127) for name, span in zip("qkv", spans, strict=True)}
    numbers |= {"p_scale": np.float32(1 / 255), "zero": np.int8(0), "zero_u8": np.uint8(0)}
    numbers |= {"qk_scale": np.float32(width**-0.5), "apart": np.array([0, 0, heads, width])}
    numbers |= {"together": np.array([0, 0, heads * width])}
    nodes = []
    for name, order in zip("qkv", ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        nodes.append(helper.make_node("Reshape", [name, "apart"], [f"{name}_heads"]))
        nodes.append(helper.make_node("Transpose", [f"{name}_heads"], [f"{name}_t"], perm=order))
    nodes += [
        _quantized("q"),
        _quantized("k"),
        _product("q_i8", "k_i8", "q_scale", "k_scale", "zero", "scores"),
    ]
    nodes.append(helper.make_node("Mul", ["scores", "qk_scale"], ["scaled"]))
    nodes.append(helper.make_node("Softmax", ["scaled"], ["p"], axis=-1))
    if way == SCORES:
        nodes.append(helper.make_node("MatMul", ["p", "v_t"], ["found"]))
    else:
        nodes.append(helper.make_node("QuantizeLinear", ["p", "p_scale", "zero_u8"], ["p_u8"]))
        nodes += [_quantized("v"), _product("p_u8", "v_i8", "p_scale", "v_scale", "zero_u8", "found")]
    nodes.append(helper.make_node("Transpose", ["found"], ["rows"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["rows", "together"], ["y"]))
    return _model(nodes, {name: np.asarray(value) for name, value in numbers.items()})


def _quantized(name: str) -> Any:
    return helper.make_node("QuantizeLinear", [f"{name}_t", f"{name}_scale", "zero"], [f"{name}_i8"])


def _product(left: str, right: str, scale: str, other: str, zero: str, made: str) -> Any:
    inputs = [left, right, scale, other, zero, "zero"]
    return helper.make_node("MatMulIntegerToFloat", inputs, [made], domain="com.microsoft")


def _model(nodes: list[Any], numbers: dict[str, Array]) -> Any:
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", name, "width"]) for name in "qkvy"
    ]
    values = [
        helper.make_tensor(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.tobytes(), raw=True
        )
        for name, array in numbers.items()
    ]
    made = helper.make_graph(nodes, "attention", ports[:3], ports[3:], values)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def measure(shape: tuple[int, int, int, int], rounds: int, folder: Path) -> dict[str, Any]:
    """Way → milliseconds, ratio to the fused operator, and error."""
    queries, keys, heads, width = shape
    random = np.random.default_rng(0)
    feeds = {
        name: random.standard_normal((ROWS, tokens, heads * width), np.float32)
        for name, tokens in (("q", queries), ("k", keys), ("v", keys))
    }
    spans = [float(np.abs(array).max()) for array in feeds.values()]
    made = {}
    for way in (FUSED, SCORES, BOTH):
        save(graph(way, heads, width, spans), folder / "attention.onnx")
        made[way] = Component(way, folder / "attention.onnx", SessionConfig(provider="cpu"), Notices(None))
    outputs = {way: component.run(feeds, "y") for way, component in made.items()}  # warms up
    turns = [{way: _seconds(component, feeds) for way, component in made.items()} for _ in range(rounds)]
    exact = outputs[FUSED]
    return {
        way: {
            "ms": spread([turn[way] * 1e3 for turn in turns]),
            "ratio": spread([turn[way] / turn[FUSED] for turn in turns]),
            "error": float(np.linalg.norm(outputs[way] - exact) / np.linalg.norm(exact)),
        }
        for way in made
    }


def _seconds(component: Component, feeds: dict[str, Array]) -> float:
    start = time.perf_counter()
    component.run(feeds, "y")
    return time.perf_counter() - start


def table(found: dict[str, dict[str, Any]]) -> str:
    """A table with a row for each shape."""
    rows = []
    for name, ways in found.items():
        cells = [f"{ways[FUSED]['ms']['median']:.0f}"]
        cells += [
            f"{ways[way]['ms']['median']:.0f} ({ways[way]['ratio']['median']:.2f}×), {ways[way]['error']:.0%}"
            for way in (SCORES, BOTH)
        ]
        rows.append([name, *cells])
    return markdown(
        ["queries on keys, heads, width", FUSED, f"{SCORES}, its error", f"{BOTH}, its error"], rows
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("int8-attention", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        found = {
            f"{shape[0]} on {shape[1]}, {shape[2]}, {shape[3]}": measure(shape, options.rounds, Path(scratch))
            for shape in SHAPES
        }
    print(table(found))
    if options.json:
        record = {"shapes": found, "rounds": options.rounds, "machine": machine()}
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
