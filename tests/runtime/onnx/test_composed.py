"""Fused operators composed of standard ones: the same results, also where later tokens are masked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from sdrt.common.notices import Notices
from sdrt.errors import IntegrityError, UnsupportedModelError
from sdrt.onnx import create_session
from sdrt.onnx.composed import ATTENTION, PRODUCT, composed
from sdrt.onnx.error_messages import Subject
from sdrt.onnx.graph_file import MICROSOFT
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.plugins import Device

onnx = pytest.importorskip("onnx", reason="it makes the graphs")
helper = onnx.helper
FILE = Path("unet/model.onnx")
FLOAT, HALF = 1, 10


def model(*inputs: str, opset: int = 20, dtype: int = FLOAT, **options: Any) -> bytes:
    """A graph with one attention of 2 heads."""
    node = helper.make_node(ATTENTION, list(inputs), ["y"], domain=MICROSOFT, num_heads=2, **options)
    names = dict.fromkeys(filter(None, inputs))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, dtype, ["batch", f"length_{name}", 16]) for name in names],
        [helper.make_tensor_value_info("y", dtype, None)],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def run(content: bytes, feeds: dict[str, Any]) -> tuple[Any, Counter[str]]:
    """The output, and the operators that ran."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    placed = session.get_provider_graph_assignment_info()
    return session.run(None, feeds)[0], Counter(node.op_type for one in placed for node in one.get_nodes())


@pytest.mark.parametrize("opset", [17, 20, 21])
@pytest.mark.parametrize("lengths", [(9, 9), (9, 4)], ids=["itself", "context"])
def test_the_result_is_that_of_the_fused_operator(opset: int, lengths: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    feeds = {
        name: random.standard_normal((2, length, 16), np.float32)
        for name, length in zip("qkv", (lengths[0], lengths[1], lengths[1]), strict=True)
    }
    content = model(*"qkv", opset=opset, scale=0.3)
    fused, apart = run(content, feeds), run(composed(content, FILE), feeds)
    assert fused[1] == {ATTENTION: 1}
    assert apart[1][ATTENTION] == 0
    assert apart[1]["Softmax"] == 1
    np.testing.assert_allclose(apart[0], fused[0], atol=2e-6)


def test_later_tokens_stay_hidden() -> None:
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal((1, 7, 16), np.float32) for name in "qkv"}
    content = model(*"qkv", scale=0.3, unidirectional=1)
    fused, apart = run(content, feeds), run(composed(content, FILE), feeds)
    np.testing.assert_allclose(apart[0], fused[0], atol=2e-6)
    # The first token sees only itself.
    np.testing.assert_allclose(apart[0][0, 0], feeds["v"][0, 0], atol=2e-6)


def test_in_float16_the_scores_are_scaled_before_they_can_overflow() -> None:
    random = np.random.default_rng(0)
    feeds = {name: (random.standard_normal((1, 7, 16)) * 150).astype(np.float16) for name in "qkv"}
    apart, _ = run(composed(model(*"qkv", dtype=HALF, scale=0.01), FILE), feeds)
    assert apart.dtype == np.float16
    assert np.isfinite(apart).all()


def product(weight: Any, **options: Any) -> bytes:
    """A graph of an attention and a product with a weight as checkpoints store it."""
    nodes = [
        helper.make_node(ATTENTION, [*"qkv"], ["x"], domain=MICROSOFT, num_heads=2, scale=0.3),
        helper.make_node(PRODUCT, ["x", "w"], ["y"], domain=MICROSOFT, **options),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, ["batch", "length", 16]) for name in "qkv"],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.mark.parametrize("operators", [(PRODUCT,), (ATTENTION, PRODUCT)])
def test_products_with_turned_weights(operators: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    content = product(random.standard_normal((5, 16), np.float32), transB=1)
    feeds = {name: random.standard_normal((2, 7, 16), np.float32) for name in "qkv"}
    fused, apart = run(content, feeds), run(composed(content, FILE, operators), feeds)
    assert fused[1][PRODUCT] == 1
    # The weight was transposed when the graph was loaded.
    assert not {PRODUCT, "Transpose"} & apart[1].keys() if operators == (PRODUCT,) else apart[1][PRODUCT] == 0
    assert apart[1]["MatMul"] == (1 if operators == (PRODUCT,) else 3)
    np.testing.assert_allclose(apart[0], fused[0], atol=1e-5)


@pytest.mark.parametrize("options", [{"transB": 1, "alpha": 0.5}, {"transA": 1}, {}])
def test_other_products_are_refused(options: dict[str, Any]) -> None:
    content = product(np.ones((16, 16), np.float32), **options)
    with pytest.raises(
        UnsupportedModelError, match="fused matrix products of a form that sdrt cannot compose"
    ):
        composed(content, FILE, (PRODUCT,))


INFINITE, NAN = float("inf"), float("nan")
DEVICE = Device(provider="WebGpuExecutionProvider", kind="GPU", vendor="any", facts={}, handle=None)


def fit(monkeypatch: pytest.MonkeyPatch, content: bytes, errors: dict[str, float]) -> MemoryGraph | None:
    """The graph for a device whose probes have these errors."""
    probes = {name: lambda _, error=error: error for name, error in errors.items()}
    monkeypatch.setattr(create_session, "_PROBES", probes)
    subject = Subject(name="unet", path=FILE, provider="webgpu", version="1")
    memory = MemoryGraph(content=content, folder=FILE.parent)
    return create_session._fit(subject, DEVICE, memory, Notices(lambda _: None), None)


@pytest.mark.parametrize("error", [INFINITE, NAN, 1.0])
def test_a_device_that_is_wrong_gets_a_graph_without_the_operator(
    monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    content = product(np.ones((5, 16), np.float32), transB=1)
    found = fit(monkeypatch, content, {ATTENTION: 0.001, PRODUCT: error})
    assert found is not None
    assert found.content == composed(content, FILE, (PRODUCT,))
    right = fit(monkeypatch, content, {ATTENTION: 0.001, PRODUCT: 0.001})
    assert right is not None
    assert right.content == content


def test_what_a_device_only_lacks_may_run_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    content = product(np.ones((16, 16), np.float32), transB=1, alpha=0.5)
    found = fit(monkeypatch, content, {ATTENTION: 0.001, PRODUCT: INFINITE})
    assert found is not None
    assert found.content == content
    with pytest.raises(UnsupportedModelError, match="fused matrix products"):
        fit(monkeypatch, content, {ATTENTION: 0.001, PRODUCT: NAN})


def test_a_graph_without_attention_stays_as_it_is() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [1])],
        [helper.make_tensor_value_info("y", 1, [1])],
    )
    content = helper.make_model(graph).SerializeToString()
    assert composed(content, FILE) == content


@pytest.mark.parametrize("inputs", [("qkv",), ("q", "kv"), ("q", "k", "v", "bias"), ("q", "", "v")])
def test_other_inputs_are_refused(inputs: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"cannot compose.*--target portable"):
        composed(model(*inputs, scale=0.3), FILE)


@pytest.mark.parametrize(
    "options", [{}, {"scale": 0.0}, {"scale": 0.3, "mask_filter_value": -1e4}, {"opset": 14}]
)
def test_other_forms_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"cannot compose.*--target portable"):
        composed(model(*"qkv", **({"scale": 0.3} if "opset" in options else {}), **options), FILE)


@pytest.mark.parametrize("cut", [1, 40, 90])
def test_a_damaged_graph_is_refused(cut: int) -> None:
    with pytest.raises(IntegrityError, match=r"unet/model\.onnx is not an ONNX file, or is damaged"):
        composed(model(*"qkv")[:-cut], FILE)
