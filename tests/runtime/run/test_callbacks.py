"""Callbacks of a call: what they see, may change, and are blamed for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdrt import RequestError, StableDiffusionPipeline
from tests.runtime.fast_calls import images


def test_callback_sees_every_step(pipeline: StableDiffusionPipeline) -> None:
    seen: list[tuple[int, float]] = []

    def callback(owner: object, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        assert owner is pipeline
        assert set(tensors) == {"latents"}
        seen.append((index, timestep))
        return tensors

    watched = images(pipeline, callback_on_step_end=callback)
    plan = pipeline.scheduler.plan(2)
    assert seen == list(enumerate(plan.timesteps))
    np.testing.assert_array_equal(watched, images(pipeline))


def test_callback_can_change_the_run(pipeline: StableDiffusionPipeline) -> None:
    def zero(owner: object, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": np.zeros_like(tensors["latents"])} if index == 0 else {}

    def swap(owner: object, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": tensors["prompt_embeds"][::-1]}

    plain = images(pipeline)
    assert np.abs(plain - images(pipeline, callback_on_step_end=zero)).max() > 0.01
    names = ["prompt_embeds", "negative_prompt_embeds"]
    swapped = images(pipeline, callback_on_step_end=swap, callback_on_step_end_tensor_inputs=names)
    assert not np.array_equal(plain, swapped)
    np.testing.assert_array_equal(plain, images(pipeline))


def test_callback_mistakes_are_named(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match="'noise_pred': expected any of latents"):
        images(pipeline, callback_on_step_end_tensor_inputs=["noise_pred"])
    for returned, words in (
        ({"latents": np.zeros(3)}, r"latents of shape \(3,\)"),
        ({"x": np.zeros(3)}, "returned 'x'"),
        ({"prompt_embeds": np.zeros(3)}, "returned 'prompt_embeds': expected only tensors that"),
        (np.zeros(3), "returned ndarray: expected a dict or None"),
    ):
        with pytest.raises(RequestError, match=words):
            images(pipeline, callback_on_step_end=lambda *_, answer=returned: answer)


def test_a_callback_is_blamed_for_what_it_returns(pipeline: StableDiffusionPipeline) -> None:
    def spoil(_: object, index: int, __: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: tensor * np.float32(np.nan) for name, tensor in tensors.items()}

    for name in ("latents", "prompt_embeds"):
        with pytest.raises(RequestError, match=f"the callback returned {name} with NaN"):
            images(pipeline, callback_on_step_end=spoil, callback_on_step_end_tensor_inputs=[name])


def test_negative_embeddings_in_a_callback(pipeline: StableDiffusionPipeline) -> None:
    names = ["prompt_embeds", "negative_prompt_embeds"]
    seen: list[dict[str, Any]] = []

    def watch(_: object, index: int, __: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tensors)
        return tensors

    def change(_: object, index: int, __: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"negative_prompt_embeds": np.zeros(3)}

    options = {"callback_on_step_end_tensor_inputs": names}
    images(pipeline, callback_on_step_end=watch, **options)
    both, negative = (seen[0][name] for name in names)
    np.testing.assert_array_equal(both[:1], negative)
    seen.clear()
    images(pipeline, callback_on_step_end=watch, guidance_scale=1.0, **options)
    assert seen[0]["negative_prompt_embeds"] is None
    for guidance_scale in (1.0, 7.5):
        with pytest.raises(RequestError, match="negative_prompt_embeds, which has no effect"):
            images(pipeline, callback_on_step_end=change, guidance_scale=guidance_scale, **options)
