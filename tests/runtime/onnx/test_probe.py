"""The probes of fused operators: what counts as right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from sdrt.onnx import probe
from sdrt.onnx.plugins import Device

CPU = Device(provider="CPUExecutionProvider", kind="CPU", vendor="any", facts={}, handle=None)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU takes the place of a device."""
    probe.attention_error.cache_clear()
    probe.product_error.cache_clear()
    monkeypatch.setattr(ort.SessionOptions, "add_provider_for_devices", lambda *_: None, raising=False)
    monkeypatch.setattr(ort.SessionOptions, "add_session_config_entry", lambda *_: None)


def test_the_cpu_is_right() -> None:
    assert probe.attention_error(CPU) < 1e-4
    assert probe.product_error(CPU) < 1e-4


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ort.InferenceSession.run
    # As if the device ignored that the weight has a row for each output.
    monkeypatch.setattr(
        ort.InferenceSession, "run", lambda self, *given: [one[..., ::-1] for one in run(self, *given)]
    )
    assert not probe.product_error(CPU) <= 0.05


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", [float("nan"), 1.0])
def test_a_wrong_result_is_seen_at_every_width(
    monkeypatch: pytest.MonkeyPatch, place: int, value: float
) -> None:
    run = ort.InferenceSession.run

    def wrong(self: Any, *given: Any) -> Any:
        found = run(self, *given)
        found[place] = found[place] + np.float32(value)
        return found

    monkeypatch.setattr(ort.InferenceSession, "run", wrong)
    assert not probe.attention_error(CPU) <= 0.05


def test_a_device_that_refuses_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, *given: Any) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(ort.InferenceSession, "run", refuse)
    assert probe.attention_error(CPU) == float("inf")
    assert probe.product_error(CPU) == float("inf")
