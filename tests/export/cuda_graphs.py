"""Runs graphs for `cuda` with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdrt_export import TARGETS
from sdrt_export.components import Component
from sdrt_export.evaluator import Evaluator
from tests.export.built import examples, reference

CUDA = TARGETS["cuda"]


def worst_error(component: Component, module: Any, graph: Evaluator, size: int) -> float:
    inputs = examples(component, module, size)
    expected = reference(component, module, inputs).values()
    feeds = {name: value for name, value in inputs.items() if name in graph.specs}
    got = graph.run(feeds, graph.outputs)
    return max(
        float(np.abs(ours - theirs).max() / np.abs(theirs).max()) if ours.shape == theirs.shape else np.inf
        for ours, theirs in zip(got, expected, strict=True)
    )
