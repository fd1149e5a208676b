"""Tries fused operators with known results on a device, because some devices compute them wrongly.

An example is WebGPU on a software driver, whose attention is wrong without an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.limits import is_of_memory
from sdrt.onnx.composed import ATTENTION, PRODUCT
from sdrt.onnx.engine import FAILURES, ort
from sdrt.onnx.graph_file import MICROSOFT
from sdrt.onnx.nodes import node, number, real
from sdrt.onnx.plugins import Device
from sdrt.onnx.small_model import small_model

__all__ = ["attention_error", "product_error"]

# Widths of a head in Stable Diffusion 1, 2 and XL, and enough queries for kernels that take
# several at once.
_WIDTHS, _HEADS, _QUERIES, _KEYS = (40, 64, 160), 2, 33, 17
_INPUTS, _OUTPUTS = 24, 48
Floats = NDArray[np.float32]


@cache
def attention_error(device: Device) -> float:
    """How far the device's fused attention is from NumPy's: the largest difference of any width of heads.

    Results are below 4. It is infinite if the device refuses the operator, and NaN if a result is.
    """
    random = np.random.default_rng(0)
    shapes = {"q": _QUERIES, "k": _KEYS, "v": _KEYS}
    feeds = {
        f"{name}{width}": random.standard_normal((1, length, _HEADS * width), np.float32)
        for width in _WIDTHS
        for name, length in shapes.items()
    }
    wanted = [_attended(*(feeds[f"{name}{width}"] for name in "qkv")) for width in _WIDTHS]
    found = _computed(device, _model(feeds), [f"y{width}" for width in _WIDTHS], feeds)
    return _largest_error(found, wanted)


@cache
def product_error(device: Device) -> float:
    """How far the device's fused matrix product is from NumPy's: the largest difference.

    The weight has a row for each output, as in checkpoints. Results are below 22. The difference is infinite if the
    device refuses the operator, and NaN if a result is.
    """
    random = np.random.default_rng(0)
    feeds = {
        "a": random.standard_normal((1, _QUERIES, _INPUTS), np.float32),
        "b": random.standard_normal((_OUTPUTS, _INPUTS), np.float32),
    }
    fused = node(PRODUCT, feeds, "y", [number("transB", 1)], MICROSOFT)
    shapes = {name: one.shape for name, one in feeds.items()}
    model = small_model("product", [fused], shapes, {"y": (1, _QUERIES, _OUTPUTS)})
    return _largest_error(_computed(device, model, ["y"], feeds), [feeds["a"] @ feeds["b"].T])


def _computed(
    device: Device, model: bytes, outputs: Sequence[str], feeds: Mapping[str, Floats]
) -> list[Floats] | None:
    """What the device makes of these inputs. None if it refuses.

    Raises `MemoryError` and what else may not happen again, so that nothing is remembered of it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Otherwise the CPU would run an operator that the device refuses, and be right.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([device.handle], {})
    try:
        found: list[Floats] = ort.InferenceSession(model, options).run(outputs, feeds)
    except FAILURES as error:
        if is_of_memory(error):
            raise
        return None
    return found


def _largest_error(found: Sequence[Floats] | None, wanted: Sequence[Floats]) -> float:
    if found is None:
        return float("inf")
    # NumPy's maximum keeps NaN.
    return float(np.max([np.abs(one - other).max() for one, other in zip(found, wanted, strict=True)]))


def _model(feeds: dict[str, Floats]) -> bytes:
    nodes = [
        node(
            ATTENTION,
            [f"{name}{width}" for name in "qkv"],
            f"y{width}",
            [number("num_heads", _HEADS), real("scale", width**-0.5)],
            MICROSOFT,
        )
        for width in _WIDTHS
    ]
    outputs = {f"y{width}": (1, _QUERIES, _HEADS * width) for width in _WIDTHS}
    return small_model("attention", nodes, {name: one.shape for name, one in feeds.items()}, outputs)


def _attended(query: Floats, key: Floats, value: Floats) -> Any:
    q, k, v = (one.reshape(one.shape[1], _HEADS, -1).swapaxes(0, 1) for one in (query, key, value))
    scores = q @ k.swapaxes(1, 2) * q.shape[-1] ** -0.5
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ v).swapaxes(0, 1).reshape(query.shape)
