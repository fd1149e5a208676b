"""Warming up: the message before a slow first run at a size, and `warm_up`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdrt import RequestError, StableDiffusionPipeline
from sdrt.onnx.providers import PROVIDERS
from sdrt.onnx.session import Component

CALL: dict[str, Any] = {"num_inference_steps": 1, "width": 64, "height": 64, "seed": 1}


def test_the_message_appears_once_per_size(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "cpu", replace(PROVIDERS["cpu"], warms_up="it reads its own manual"))
    said: list[str] = []
    made = StableDiffusionPipeline.from_pretrained(
        tiny_model, notify=said.append, provider="cpu", verify=False
    )
    for size in ({}, {}, {"height": 72}, {"num_images_per_prompt": 2}):
        made("a", **{**CALL, **size})
    assert [text for text in said if "warming up" in text] == [
        f"warming up for {size}, on cpu: it reads its own manual"
        for size in ("64x64, 1 at once", "64x72, 1 at once", "64x64, 2 at once")
    ]


def test_the_cpu_shows_no_message(tiny_model: Path) -> None:
    said: list[str] = []
    made = StableDiffusionPipeline.from_pretrained(
        tiny_model, notify=said.append, provider="cpu", verify=False
    )
    made("a", **CALL)
    assert said == []


def test_after_warming_up_a_call_makes_no_session_and_no_buffers(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = StableDiffusionPipeline.from_pretrained(
        tiny_model, notify=lambda message: None, provider="cpu", verify=False
    )
    made.warm_up(width=64, height=72, num_images_per_prompt=2)
    open_then = made.graphs

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made in a call")

    monkeypatch.setattr("sdrt.onnx.session.Bound", refuse)
    monkeypatch.setattr(Component, "__init__", refuse)
    made("a", **{**CALL, "height": 72, "num_images_per_prompt": 2})
    assert made.graphs == open_then
    with pytest.raises(AssertionError, match="made in a call"):
        made("a", **CALL)


def test_invalid_sizes_are_refused(tiny_model: Path) -> None:
    made = StableDiffusionPipeline.from_pretrained(tiny_model, verify=False)
    with pytest.raises(RequestError, match="width is 63"):
        made.warm_up(width=63)
