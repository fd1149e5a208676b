"""This script runs SD 1.5's convolutions and attentions with ONNX Runtime, and compares the results with NumPy's.

    python -m benchmarks.operator_probe cpu|cuda

It ends with the differences, a line each, or without output. `requirements` passes its text to another interpreter.
It must not import torch: torch loads CUDA's libraries, and ONNX Runtime would find them only in the same process.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

Array = np.ndarray[Any, Any]
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
DTYPES = {"cuda": np.float16, "cpu": np.float32}
TYPES = {"cuda": TensorProto.FLOAT16, "cpu": TensorProto.FLOAT}
LIMIT = 0.01
"""Relative error. float16 rounds a result by 5e-4, flash attention also its weights; a wrong layout is off by 1."""
CONVOLUTIONS = (
    *((4, 320, 3, 1, 64), (320, 4, 3, 1, 64), (3, 128, 3, 1, 64), (128, 3, 3, 1, 64), (8, 8, 1, 1, 64)),
    *((4, 4, 1, 1, 64), (128, 128, 4, 2, 64), (320, 320, 3, 2, 64), (640, 1280, 3, 1, 16)),
)
"""Input channels, output channels, side of the kernel, stride, side of the input: SD 1.5's unusual ones."""
ATTENTIONS = (
    *((8, 40, 1024, 1024, "packed"), (8, 80, 1024, 1024, "packed"), (8, 160, 256, 256, "packed")),
    *((8, 40, 1024, 77, "packed keys"), (8, 160, 64, 77, "packed keys"), (12, 64, 77, 77, "packed")),
    (1, 512, 1024, 1024, "apart"),
)
"""Heads, their width, queries, keys, and how a GPU gets them. The CPU gets all of them apart."""


def main(device: str) -> None:
    """Ends the program with the operators that fail on `device`."""
    _need_provider(device)
    wrong = [reason for name, run in _cases(device).items() if (reason := _compare(name, run))]
    sys.exit("\n".join(wrong) or None)


def _need_provider(device: str) -> None:
    provider = PROVIDERS[device]
    if hasattr(ort, "preload_dlls") and device == "cuda":
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    available = ort.get_available_providers()
    if provider not in available:
        sys.exit(
            f"onnxruntime {ort.__version__} has no {provider}, only {', '.join(available)}: give --parts, or install "
            "onnxruntime-gpu and no other onnxruntime"
        )


def _cases(device: str) -> dict[str, Callable[[], tuple[Array, Array]]]:
    """Name → a function that returns ONNX Runtime's result and NumPy's."""
    cases: dict[str, Callable[[], tuple[Array, Array]]] = {}
    for channels, out, side, stride, pixels in CONVOLUTIONS:
        name = f"a convolution of {side}x{side}, {channels} to {out} channels, stride {stride}"
        cases[name] = _bound(_convolution, device, channels, out, side, stride, pixels)
    for heads, width, queries, keys, packing in ATTENTIONS:
        form = packing if device == "cuda" else "apart"
        name = f"attention of {heads} heads of {width}, {queries} on {keys}, {form}"
        cases[name] = _bound(_attention, device, heads, width, queries, keys, form)
    return cases


def _bound(
    function: Callable[..., tuple[Array, Array]], *arguments: Any
) -> Callable[[], tuple[Array, Array]]:
    return lambda: function(*arguments)


def _compare(name: str, run: Callable[[], tuple[Array, Array]]) -> str | None:
    """Why a case fails; None if it does not."""
    try:
        y, expected = run()
    except Exception as error:  # any failure of ONNX Runtime is a result here
        return f"{name}: {' '.join(str(error).split())[:300]}"
    difference = np.inf
    if y.shape == expected.shape:
        difference = np.abs(np.asarray(y, np.float32) - expected).max() / np.abs(expected).max()
    return (
        None
        if difference < LIMIT
        else f"{name}: differs from NumPy's by {difference:.2g} of its largest value"
    )


def _run(device: str, node: Any, feeds: Mapping[str, Array], weights: Mapping[str, Array]) -> Array:
    """The output of a graph with one node."""
    kind, provider = TYPES[device], PROVIDERS[device]
    inputs = [helper.make_tensor_value_info(name, kind, array.shape) for name, array in feeds.items()]
    values = [
        helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True)
        for name, array in weights.items()
    ]
    output = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([node], "probe", inputs, [output], values)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    if device != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=[provider], enable_fallback=0
    )
    if session.get_providers()[0] != provider:
        sys.exit(f"onnxruntime {ort.__version__} took {session.get_providers()[0]} instead of {provider}")
    found: Array = session.run(None, dict(feeds))[0]
    return found


def _convolution(
    device: str, channels: int, out: int, side: int, stride: int, pixels: int
) -> tuple[Array, Array]:
    """The pixel in the middle, which sees no padding: ONNX Runtime's and NumPy's, `[2, out]`."""
    random, is_nhwc, dtype = np.random.default_rng(0), device == "cuda", DTYPES[device]
    weight = random.standard_normal((out, side, side, channels)).astype(dtype)
    x = random.standard_normal((2, pixels, pixels, channels)).astype(dtype)
    pad, at = (side - 1) // 2, pixels // (2 * stride)
    name, domain = ("NhwcConv", "com.microsoft") if is_nhwc else ("Conv", "")
    node = helper.make_node(
        name,
        ["x", "w"],
        ["y"],
        domain=domain,
        kernel_shape=[side, side],
        strides=[stride] * 2,
        pads=[pad] * 4,
        group=1,
        dilations=[1, 1],
    )

    def ordered(array: Array) -> Array:
        return array if is_nhwc else np.ascontiguousarray(array.transpose(0, 3, 1, 2))

    y = _run(device, node, {"x": ordered(x)}, {"w": ordered(weight)})
    first = at * stride - pad
    seen = x[:, first : first + side, first : first + side].astype(np.float32)
    expected: Array = np.einsum("nrsc,orsc->no", seen, weight.astype(np.float32))
    return (y[:, at, at] if is_nhwc else y[:, :, at, at]), expected


def _attention(
    device: str, heads: int, width: int, queries: int, keys: int, form: str
) -> tuple[Array, Array]:
    """ONNX Runtime's result and NumPy's, `[2, queries, heads * width]`; causal for CLIP's 77 tokens."""
    random, dtype = np.random.default_rng(0), DTYPES[device]
    q, k, v = (
        random.standard_normal((2, length, heads, width)).astype(dtype) for length in (queries, keys, keys)
    )
    if form == "packed":
        feeds = {"q": np.stack([q, k, v], 3)}
    elif form == "packed keys":
        feeds = {"q": _flat(q), "k": np.stack([k, v], 3)}
    else:
        feeds = {"q": _flat(q), "k": _flat(k), "v": _flat(v)}
    is_causal, scale = int(queries == keys == 77), width**-0.5
    node = helper.make_node(
        "MultiHeadAttention",
        [*feeds],
        ["y"],
        domain="com.microsoft",
        num_heads=heads,
        scale=scale,
        unidirectional=is_causal,
    )
    y = _run(device, node, feeds, {})
    q, k, v = (array.transpose(0, 2, 1, 3).astype(np.float32) for array in (q, k, v))
    scores = q @ k.swapaxes(2, 3) * np.float32(scale)
    if is_causal:
        scores += np.triu(np.full((queries, keys), -1e9, np.float32), 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (weights / weights.sum(-1, keepdims=True)) @ v
    return y, _flat(expected.transpose(0, 2, 1, 3))


def _flat(array: Array) -> Array:
    """Heads side by side."""
    return array.reshape(*array.shape[:2], -1)


if __name__ == "__main__":
    main(sys.argv[1])
