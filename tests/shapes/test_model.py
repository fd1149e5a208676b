"""The embedded model judged by what its pictures show. Bounds are below what is measured in MODEL_CARD.md, by more
than 40 prompts scatter, and far above what a broken sampler gives."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest

from sdrt import StableDiffusionPipeline
from sdrt_models.shapes.evaluate import Settings, held_out_prompts, measure, measure_negative_prompt
from sdrt_models.shapes.scenes import is_held_out

PROMPTS = 40


@pytest.fixture(scope="module")
def shapes() -> Iterator[StableDiffusionPipeline]:
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", notify=lambda _: None) as pipeline:
        yield pipeline


def test_it_draws_what_it_is_asked_for(shapes: StableDiffusionPipeline) -> None:
    found = measure(shapes, PROMPTS, Settings())
    assert found["colour"].share >= 0.90
    assert found["shape"].share >= 0.85
    assert found["relation"].share >= 0.65


def test_guidance_matters(shapes: StableDiffusionPipeline) -> None:
    guided, unguided = (
        measure(shapes, PROMPTS, Settings(guidance_scale=scale))["everything"].share for scale in (7.5, 1.0)
    )
    assert unguided < guided - 0.1


def test_a_negative_prompt_takes_away_what_it_names(shapes: StableDiffusionPipeline) -> None:
    found = measure_negative_prompt(shapes, 64, Settings())
    assert found["with"].share < found["without"].share / 2


def test_prompts_are_held_out_and_different() -> None:
    prompts = held_out_prompts(200)
    assert len({text for text, _ in prompts}) == 200
    assert all(is_held_out(scene) for _, scene in prompts)


def test_it_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the network was used")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    pipeline = StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", notify=lambda _: None)
    assert pipeline("a red circle", num_inference_steps=2, seed=0).images[0].size == (128, 128)
