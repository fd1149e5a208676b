"""Measures the highest rates that a provider reaches: multiplying large matrices, and moving large tensors.

Together, these rates are the roof of the roofline model (Williams et al. 2009): an operator takes at least the time of
its arithmetic at the first rate, and at least the time of its bytes at the second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.notices import Notices
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.providers import PROVIDERS, SessionConfig

if TYPE_CHECKING:
    from sdrt.onnx.session import Component

__all__ = ["CHAIN", "GRAPHS", "least_seconds", "measure_ceiling"]

GRAPHS = Path(__file__).parent / "graphs"
"""The folder of the graphs, which `python -m tools.write_ceiling` writes."""
CHAIN = 8
"""Operators in one graph. Each takes the output of the one before it."""
_RUNS = 8
# Sides of the matrices, and elements of tensors that exceed the caches.
_ON_CPU, _ON_DEVICE = (1024, 1 << 24), (4096, 1 << 26)


def measure_ceiling(config: SessionConfig, dtype: np.dtype[Any], notices: Notices) -> dict[str, Any]:
    """The best of several runs: `flops_per_second` of matrix products in `dtype`, and `bytes_per_second`.

    A multiplication and an addition count as two operations. Each byte of an input or output counts. This works only
    for providers that run operators one by one: one that merges sums would seem to move more bytes than it does.

    Raises the errors of a session.
    """
    device = PROVIDERS[config.name].device
    side, elements = _ON_DEVICE if device else _ON_CPU
    random = np.random.default_rng(0)
    # The norm is about 1, so that products of products stay finite.
    matrix = (random.standard_normal((side, side)) / np.sqrt(side)).astype(dtype)
    multiplying = _seconds(f"matmul_{dtype.name}", {"a": matrix, "b": matrix}, config, notices)
    tensor = np.zeros(elements, np.float32)
    adding = _seconds("add_float32", {"a": tensor, "b": tensor}, config, notices)
    return {
        "dtype": dtype.name,
        "side": side,
        "flops_per_second": CHAIN * 2 * side**3 / multiplying,
        "bytes_per_second": CHAIN * 3 * tensor.nbytes / adding,
    }


def least_seconds(flops: int, moved: int, ceiling: Mapping[str, Any]) -> float:
    """The shortest time for `flops` operations on `moved` bytes, in seconds."""
    return float(max(flops / ceiling["flops_per_second"], moved / ceiling["bytes_per_second"]))


def _seconds(name: str, inputs: Mapping[str, NDArray[Any]], config: SessionConfig, notices: Notices) -> float:
    from sdrt.onnx.session import Component

    graph, weights = GRAPHS / f"{name}.onnx", Weights(dtype=inputs["a"].dtype.name)
    component: Component = Component(name, graph, config, notices, weights)
    with component.bound({key: array.shape for key, array in inputs.items()}, ("first",)) as run:
        for key, array in inputs.items():
            run.set(key, array)
        return min(_one(run) for _ in range(_RUNS))


def _one(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
