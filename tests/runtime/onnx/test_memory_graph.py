"""Weights that ONNX Runtime uses where they are: equal to copied ones, read by nothing but products."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sdrt.onnx.tuning as tuning
from sdrt.common.notices import Notices
from sdrt.errors import SdrtError
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.graph_file import read_graph
from sdrt.onnx.memory_graph import MemoryGraph, only_multiplied
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component


def changed(model: Path, graph: str = "model.onnx") -> tuple[Path, MemoryGraph]:
    """The U-Net with other values for all its matrices."""
    path = model / "unet" / graph
    found, source = read_graph(path), np.random.default_rng(0)
    values = {
        name: source.standard_normal(weight.shape, np.float32) * 0.1
        for name, weight in found.elsewhere.items()
        if len(weight.shape) == 2
    }
    return path, found.with_values(values)


def output(path: Path, memory: MemoryGraph) -> np.ndarray:
    component = Component("unet", path, SessionConfig(provider="cpu"), Notices(), memory=memory)
    source, shapes = np.random.default_rng(1), {"batch": 2, "height": 8, "width": 8, "sequence": 77}
    feeds = {
        name: np.array(
            source.standard_normal([shapes.get(str(axis), axis) for axis in spec.shape]), spec.dtype
        )
        for name, spec in component.inputs.items()
    }
    return component.run(feeds, next(iter(component.outputs)))


def test_a_weight_that_is_not_copied_gives_the_same_numbers(tiny_model: Path) -> None:
    path, memory = changed(tiny_model)
    assert memory.uncopied
    copied = replace(memory, uncopied=frozenset())
    np.testing.assert_array_equal(output(path, memory), output(path, copied))


def test_no_weight_is_copied_that_only_products_read(tiny_model: Path) -> None:
    _, memory = changed(tiny_model)
    assert memory.uncopied == memory.values.keys()


def test_the_old_value_is_never_read(tiny_model: Path) -> None:
    """The graph's own value cannot be read, so an optimizer that needs it fails, and computes nothing wrong."""
    path, memory = changed(tiny_model)
    name = min(memory.uncopied)
    without = {other: value for other, value in memory.values.items() if other != name}
    with pytest.raises(SdrtError):
        output(path, replace(memory, values=without, uncopied=memory.uncopied - {name}))


def test_a_weight_with_another_reader_is_copied() -> None:
    nodes = [
        ("MatMul", ("x", "w")),
        ("Gemm", ("y", "v", "bias")),
        ("FusedMatMul", ("x", "u")),
        ("Add", ("x", "v")),
        ("MatMul", ("left", "right")),
        ("MatMul", ("right", "other")),
        ("Conv", ("x", "kernel")),
    ]
    assert only_multiplied(nodes) == {"w", "u", "other"}


def test_weights_that_are_not_copied_live_on_where_tuning_fails(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "make_room", lambda _: "the disk is full")
    path, memory = changed(tiny_model)
    config, weights = SessionConfig(provider="cpu", tune=True), Weights(digest="a")
    component = Component("unet", path, config, Notices(lambda _: None), weights, memory=memory)
    values = [weakref.ref(memory.values[name]) for name in memory.uncopied]
    del memory
    assert component.inputs
    assert all(one() is not None for one in values)
