"""What counts as a fallback, and what to do about it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sdrt.onnx.placement import strays, unfit
from sdrt.onnx.providers import PROVIDERS, SessionConfig


def assigned(**operators: str) -> list[SimpleNamespace]:
    """A report of ONNX Runtime's: each operator on the provider of that name."""
    return [
        SimpleNamespace(
            ep_name=PROVIDERS[provider].ort, get_nodes=lambda name=name: [SimpleNamespace(op_type=name)]
        )
        for name, provider in operators.items()
    ]


@pytest.mark.parametrize(
    "operator", ["NhwcConv", "Resize", "BiasAdd", "SkipLayerNormalization", "QuickGelu", "Transpose"]
)
def test_what_sends_large_tensors_there_and_back_is_a_fallback(operator: str) -> None:
    """Resize of version 19, for one, has no CUDA kernel before onnxruntime 1.25."""
    report = assigned(**{operator: "cpu", "Shape": "cpu", "MatMul": "cuda"})
    assert list(strays(PROVIDERS["cuda"], report)) == [operator]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_the_remedy_helps_whoever_followed_its_first_half(provider: str) -> None:
    said = unfit(SessionConfig(provider=provider))
    target = PROVIDERS[provider].target
    first, _, rest = said.partition("; if it was, ")
    assert first == f"export the checkpoint with --target {target}"
    assert f"--target {target}" not in rest
    assert "upgrade onnxruntime" in rest
