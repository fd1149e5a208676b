"""Samplers that need more of a run than a denoiser and planned levels: on the tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdrt import GenerationStep, Request, RequestError, StableDiffusionPipeline

NEW = [
    *("dpmpp_2s_a", "dpmpp_2m_sde_heun", "restart", "dpm_fast", "dpm_adaptive", "ddim_cfgpp"),
    *("dpm_2m", "dpm_2m_sde", "dpm_3s"),
]
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
MASK = np.pad(np.full((32, 32), 255, np.uint8), 16)


def drawn(pipeline: StableDiffusionPipeline, **options: Any) -> np.ndarray:
    usual: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 4, "seed": 3, "output_type": "np"}
    images = pipeline(**(usual | options)).images
    assert isinstance(images, np.ndarray)
    return images


@pytest.mark.parametrize("scheduler", NEW)
def test_images_are_made_from_a_prompt_an_image_and_a_mask(
    pipeline: StableDiffusionPipeline, scheduler: str
) -> None:
    made = drawn(pipeline, scheduler=scheduler)
    np.testing.assert_array_equal(made, drawn(pipeline, scheduler=scheduler))
    near = drawn(pipeline, scheduler=scheduler, image=IMAGE, strength=0.5)
    assert np.isfinite([made.std(), near.std()]).all()
    painted = drawn(pipeline, scheduler=scheduler, image=IMAGE, mask_image=MASK, mask_blur=0)
    np.testing.assert_allclose(painted[0, :16] * 255, IMAGE[:16], atol=0.5)


def test_an_adaptive_run_has_no_number_of_steps(pipeline: StableDiffusionPipeline) -> None:
    request = Request(prompt="[a cat:a dog:0.5]", num_inference_steps=4, seed=1)
    assert pipeline.num_evaluations(request, scheduler="dpm_adaptive") is None
    *steps, result = pipeline.stream(request, scheduler="dpm_adaptive")
    assert all(isinstance(step, GenerationStep) and step.num_steps is None for step in steps)
    assert [step.index for step in steps if isinstance(step, GenerationStep)] == list(range(len(steps)))
    assert steps[-1].last  # type: ignore[union-attr]
    assert len(result.timings["unet"]) == len(steps)  # type: ignore[union-attr]
    # The prompt changes in the middle: the image is neither that of the first nor that of the second.
    made = {
        drawn(pipeline, prompt=prompt, scheduler="dpm_adaptive").tobytes()
        for prompt in ("[a cat:a dog:0.5]", "a cat", "a dog")
    }
    assert len(made) == 3


def test_cfgpp_is_ddim_where_the_prompt_says_nothing(pipeline: StableDiffusionPipeline) -> None:
    same: dict[str, Any] = {"negative_prompt": "a cat", "guidance_scale": 7.0}
    plain, plus = (drawn(pipeline, scheduler=name, **same) for name in ("ddim", "ddim_cfgpp"))
    np.testing.assert_allclose(plus, plain, atol=2e-3)
    others = (drawn(pipeline, scheduler=name, guidance_scale=7.0) for name in ("ddim", "ddim_cfgpp"))
    assert np.abs(np.subtract(*others)).max() > 2e-3


def test_cfgpp_sees_large_images_through_windows(pipeline: StableDiffusionPipeline) -> None:
    options: dict[str, Any] = {"height": 64, "width": 96, "tile_size": 64, "guidance_scale": 7.0}
    plain, plus = (
        drawn(pipeline, scheduler=name, negative_prompt="a cat", **options) for name in ("ddim", "ddim_cfgpp")
    )
    np.testing.assert_allclose(plus, plain, atol=2e-3)


def test_cfgpp_needs_guidance(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match="'ddim_cfgpp' needs guidance: use a guidance_scale above 1"):
        drawn(pipeline, scheduler="ddim_cfgpp", guidance_scale=1.0)


def test_metadata_say_the_schedule(pipeline: StableDiffusionPipeline) -> None:
    for scheduler, said in (
        ("DPM++ 2S a Karras", {"Sampler": "DPM++ 2S a", "Schedule type": "Karras"}),
        ("DPM adaptive", {"Sampler": "DPM adaptive"}),
        ("DDIM CFG++", {"Sampler": "DDIM CFG++"}),
        ("dpmpp_2m trailing", {"Sampler": "DPM++ 2M", "Schedule type": "Simple", "Spacing": "trailing"}),
    ):
        made = pipeline("a cat", num_inference_steps=2, seed=1, scheduler=scheduler)
        labels = ("Sampler", "Schedule type", "Spacing")
        assert {key: value for key, value in made.metadata(0).settings.items() if key in labels} == said
