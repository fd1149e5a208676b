"""The operators of target `cuda` in NumPy beside ONNX Runtime's CPU provider, and what the kernels refuse.

Where the CPU has a kernel of the operator itself, by that; where not, by the operators that ONNX's or ONNX Runtime's
documentation says it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from sdrt_export.evaluator import Evaluator

Array = np.ndarray[Any, Any]
Node = tuple[str, list[str], list[str], dict[str, Any]]
CONTRIB = {
    *("BiasAdd", "BiasSplitGelu", "GroupNorm", "MultiHeadAttention", "NhwcConv", "QuickGelu"),
    *("SkipGroupNorm", "SkipLayerNormalization"),
}


def draw(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write(path: Path, inputs: dict[str, Array], outputs: Sequence[str], nodes: Sequence[Node]) -> Path:
    """A graph of these nodes; whole numbers among the inputs are constants of it."""
    floats = {name: array for name, array in inputs.items() if array.dtype.kind == "f"}
    graph = helper.make_graph(
        [
            helper.make_node(
                kind, taken, given, domain="com.microsoft" if kind in CONTRIB else "", **attributes
            )
            for kind, taken, given, attributes in nodes
        ],
        "one",
        [helper.make_tensor_value_info(name, 1, list(array.shape)) for name, array in floats.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            onnx.numpy_helper.from_array(array, name)
            for name, array in inputs.items()
            if array.dtype.kind != "f"
        ],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def by_onnxruntime(path: Path, feeds: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    floats = {name: array for name, array in feeds.items() if array.dtype.kind == "f"}
    return [np.asarray(array) for array in session.run(list(outputs), floats)]


def by_numpy(path: Path, feeds: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
    return Evaluator(path).run(feeds, outputs)


def near(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(np.abs(expected).max()), rtol=0)


QKV = draw(q=(2, 7, 24), k=(2, 7, 24), v=(2, 7, 24))
CROSS = draw(q=(2, 7, 24), k=(2, 5, 24), v=(2, 5, 24))
LAYER = draw(x=(2, 7, 24), skip=(2, 7, 24), gamma=(24,), beta=(24,), bias=(24,))
HAVE_CPU_KERNELS: dict[str, tuple[dict[str, Array], list[str], Node]] = {
    "quick gelu": (draw(x=(3, 40)), ["y"], ("QuickGelu", ["x"], ["y"], {})),
    "silu": (draw(x=(3, 40)), ["y"], ("QuickGelu", ["x"], ["y"], {"alpha": 1.0})),
    "attention": (QKV, ["y"], ("MultiHeadAttention", ["q", "k", "v"], ["y"], {"num_heads": 3})),
    "attention, scaled": (
        QKV,
        ["y"],
        ("MultiHeadAttention", ["q", "k", "v"], ["y"], {"num_heads": 3, "scale": 0.7}),
    ),
    "attention, causal": (
        QKV,
        ["y"],
        ("MultiHeadAttention", ["q", "k", "v"], ["y"], {"num_heads": 2, "unidirectional": 1}),
    ),
    "attention, cross": (CROSS, ["y"], ("MultiHeadAttention", ["q", "k", "v"], ["y"], {"num_heads": 4})),
    "skip layer norm": (
        LAYER,
        ["y", "total"],
        (
            "SkipLayerNormalization",
            ["x", "skip", "gamma", "beta", "bias"],
            ["y", "", "", "total"],
            {"epsilon": 1e-5},
        ),
    ),
    "skip layer norm without biases": (
        {name: LAYER[name] for name in ("x", "skip", "gamma")},
        ["y"],
        ("SkipLayerNormalization", ["x", "skip", "gamma"], ["y"], {}),
    ),
}


@pytest.mark.parametrize("case", HAVE_CPU_KERNELS)
def test_it_is_what_onnxruntime_computes(case: str, tmp_path: Path) -> None:
    feeds, outputs, node = HAVE_CPU_KERNELS[case]
    path = write(tmp_path / "one.onnx", feeds, outputs, [node])
    for found, expected in zip(
        by_numpy(path, feeds, outputs), by_onnxruntime(path, feeds, outputs), strict=True
    ):
        near(found, expected)


def conv(size: int, stride: int, pad: int) -> tuple[dict[str, Array], list[Node], list[Node]]:
    feeds = draw(x=(2, 9, 8, 6), w=(5, size, size, 6), b=(5,))
    shared = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    standard: list[Node] = [
        ("Transpose", ["x"], ["xt"], {"perm": [0, 3, 1, 2]}),
        ("Transpose", ["w"], ["wt"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["xt", "wt", "b"], ["yt"], shared),
        ("Transpose", ["yt"], ["y"], {"perm": [0, 2, 3, 1]}),
    ]
    return feeds, [("NhwcConv", ["x", "w", "b"], ["y"], shared)], standard


def norm(silu: bool, skip: str = "") -> tuple[dict[str, Array], list[Node], list[Node]]:
    """GroupNorm by InstanceNormalization over each group; with `skip` the sum first."""
    shapes = {"x": (2, 5, 4, 12), "gamma": (12,), "beta": (12,), "bias": (12,)}
    feeds = draw(**shapes, skip=(2, 5, 4, 12) if skip == "whole" else (2, 12))
    feeds |= {"ones": np.ones(3, np.float32), "zeros": np.zeros(3, np.float32)}
    feeds |= {
        "wide": np.array([2, 1, 1, 12]),
        "grouped": np.array([2, 3, -1]),
        "back": np.array([2, 12, 5, 4]),
    }
    attributes = {"groups": 3, "epsilon": 1e-5, "activation": int(silu), "channels_last": 1}
    sums: list[Node] = []
    if skip:
        taken = "skip" if skip == "whole" else "spread"
        spread: list[Node] = [] if skip == "whole" else [("Reshape", ["skip", "wide"], ["spread"], {})]
        sums = [
            *spread,
            ("Add", ["x", taken], ["part"], {}),
            ("Add", ["part", "bias"], ["total"], {}),
        ]
    standard: list[Node] = [
        *sums,
        ("Transpose", ["total" if skip else "x"], ["first"], {"perm": [0, 3, 1, 2]}),
        ("Reshape", ["first", "grouped"], ["groups"], {}),
        ("InstanceNormalization", ["groups", "ones", "zeros"], ["normed"], {"epsilon": 1e-5}),
        ("Reshape", ["normed", "back"], ["apart"], {}),
        ("Transpose", ["apart"], ["last"], {"perm": [0, 2, 3, 1]}),
        ("Mul", ["last", "gamma"], ["scaled"], {}),
        ("Add", ["scaled", "beta"], ["z" if silu else "y"], {}),
        *([("Sigmoid", ["z"], ["gate"], {}), ("Mul", ["z", "gate"], ["y"], {})] if silu else []),
    ]
    if skip:
        return (
            feeds,
            [("SkipGroupNorm", ["x", "gamma", "beta", "skip", "bias"], ["y", "total"], attributes)],
            standard,
        )
    return feeds, [("GroupNorm", ["x", "gamma", "beta"], ["y"], attributes)], standard


SUM: tuple[dict[str, Array], list[Node], list[Node]] = (
    draw(x=(2, 7, 24), bias=(24,), skip=(2, 7, 24)),
    [("BiasAdd", ["x", "bias", "skip"], ["y"], {})],
    [("Add", ["x", "bias"], ["z"], {}), ("Add", ["z", "skip"], ["y"], {})],
)
SPLIT: tuple[dict[str, Array], list[Node], list[Node]] = (
    draw(x=(1, 3, 2560), bias=(2560,)),
    [("BiasSplitGelu", ["x", "bias"], ["y"], {})],
    [
        ("Add", ["x", "bias"], ["z"], {}),
        ("Split", ["z"], ["left", "right"], {"axis": -1, "num_outputs": 2}),
        ("Gelu", ["right"], ["gate"], {}),
        ("Mul", ["left", "gate"], ["y"], {}),
    ],
)


def packed(parts: int, causal: bool) -> tuple[dict[str, Array], list[Node], list[Node]]:
    """[batch, length, heads, parts, head_dim], by the attention of parts that are taken apart again."""
    feeds = draw(q=(2, 7, 24), p=(2, 7, 3, parts, 8))
    feeds |= {f"at{i}": np.array(i) for i in range(parts)} | {"flat": np.array([0, 0, -1])}
    names = "qkv"[-parts:]
    apart: list[Node] = []
    for i, name in enumerate(names):
        apart.append(("Gather", ["p", f"at{i}"], [f"{name}5"], {"axis": 3}))
        apart.append(("Reshape", [f"{name}5", "flat"], [f"{name}3"], {}))
    attributes = {"num_heads": 3, "scale": 0.4, "unidirectional": int(causal)}
    taken = [f"{name}3" if name in names else name for name in "qkv"]
    return (
        feeds,
        [("MultiHeadAttention", ["p"] if parts == 3 else ["q", "p"], ["y"], attributes)],
        [*apart, ("MultiHeadAttention", taken, ["y"], attributes)],
    )


MADE_OF_OTHERS = {
    "convolution": conv(3, 1, 1),
    "convolution of one pixel": conv(1, 1, 0),
    "convolution that halves": conv(3, 2, 1),
    "convolution that halves, 4x4": conv(4, 2, 1),
    "group norm": norm(silu=False),
    "group norm with SiLU": norm(silu=True),
    "skip group norm": norm(silu=True, skip="whole"),
    "skip group norm of a vector": norm(silu=False, skip="vector"),
    "bias add": SUM,
    "bias split gelu": SPLIT,
    "attention, packed": packed(3, causal=False),
    "attention, packed and causal": packed(3, causal=True),
    "attention, keys and values packed": packed(2, causal=False),
}


@pytest.mark.parametrize("case", MADE_OF_OTHERS)
def test_it_is_what_its_parts_compute(case: str, tmp_path: Path) -> None:
    feeds, fused, standard = MADE_OF_OTHERS[case]
    outputs = fused[0][2]
    found = by_numpy(write(tmp_path / "fused.onnx", feeds, outputs, fused), feeds, outputs)
    expected = by_onnxruntime(write(tmp_path / "parts.onnx", feeds, outputs, standard), feeds, outputs)
    for one, other in zip(found, expected, strict=True):
        near(one, other)


def test_products_of_float16_are_summed_in_float32(tmp_path: Path) -> None:
    """2048 and one: a sum that float16 rounds away at every step would stay at 2048."""
    x = np.concatenate([[2048.0], np.ones(2048)]).reshape(1, 1, 1, -1).astype(np.float16)
    weight = np.ones((1, 1, 1, 2049), np.float16)
    graph = helper.make_graph(
        [helper.make_node("NhwcConv", ["x", "w"], ["y"], domain="com.microsoft", kernel_shape=[1, 1])],
        "one",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT16, list(array.shape))
            for name, array in (("x", x), ("w", weight))
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("com.microsoft", 1)], ir_version=10),
        tmp_path / "one.onnx",
    )
    (found,) = Evaluator(tmp_path / "one.onnx").run({"x": x, "w": weight}, ["y"])
    assert found.dtype == np.float16
    assert found.item() == 4096


REFUSED: dict[str, tuple[dict[str, Array], Node, str]] = {
    "odd groups": (
        draw(x=(1, 2, 2, 9), gamma=(9,), beta=(9,)),
        (
            "GroupNorm",
            ["x", "gamma", "beta"],
            ["y"],
            {"groups": 3, "activation": 0, "epsilon": 1e-5, "channels_last": 1},
        ),
        "3 channels in a group",
    ),
    "channels first": (
        draw(x=(1, 8, 2, 2), gamma=(8,), beta=(8,)),
        (
            "GroupNorm",
            ["x", "gamma", "beta"],
            ["y"],
            {"groups": 2, "activation": 0, "epsilon": 1e-5, "channels_last": 0},
        ),
        "channels must be last",
    ),
    "unlike pads": (
        draw(x=(1, 5, 5, 2), w=(2, 3, 3, 2)),
        (
            "NhwcConv",
            ["x", "w"],
            ["y"],
            {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "strides": [2, 2]},
        ),
        r"different padding at its two ends \(0, 0, 1, 1\)",
    ),
    "a width of GELU": (
        draw(x=(1, 2, 48), bias=(48,)),
        ("BiasSplitGelu", ["x", "bias"], ["y"], {}),
        "split GELU of width 24",
    ),
    "four dimensions": (
        draw(x=(1, 2, 2, 8), bias=(8,), skip=(1, 2, 2, 8)),
        ("BiasAdd", ["x", "bias", "skip"], ["y"], {}),
        "of 4 dimensions",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_kernel_is_refused(case: str, tmp_path: Path) -> None:
    """The schemas allow it: on a GPU it would fail, or worse, after an export that passed its comparison."""
    feeds, node, said = REFUSED[case]
    path = write(tmp_path / "one.onnx", feeds, ["y"], [node])
    with pytest.raises(ValueError, match=said):
        by_numpy(path, feeds, ["y"])
