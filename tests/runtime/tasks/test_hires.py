"""Images that are made twice: small, and from that large; on the tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import Request, RequestError, StableDiffusionPipeline, StableDiffusionPipelineOutput
from sdrt.images.arrays import to_bytes
from sdrt.tasks.hires import enlarged_latents

FAST: dict[str, Any] = {"num_inference_steps": 4, "seed": 3, "output_type": "np"}


def test_latents_are_enlarged_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    latents = np.random.default_rng(0).standard_normal((4, 8, 6), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(latents)[None], size=(15, 13), mode="bilinear"
    )
    np.testing.assert_allclose(enlarged_latents(latents, 15, 13), expected[0].numpy(), atol=1e-5)


def test_it_is_image_to_image_from_the_enlarged_latents(pipeline: StableDiffusionPipeline) -> None:
    small = pipeline("a cat", **FAST | {"output_type": "latent"}).images
    height, width = small.shape[2:]
    large = np.stack([enlarged_latents(one, 2 * height, 2 * width) for one in small])
    expected = pipeline("a cat", image=large, strength=0.5, **FAST).images
    made = pipeline("a cat", hires_scale=2, hires_strength=0.5, **FAST).images
    assert made.shape[1:3] == (16 * height, 16 * width)
    np.testing.assert_array_equal(made, expected)


def test_it_is_image_to_image_from_the_enlarged_image(pipeline: StableDiffusionPipeline) -> None:
    small = pipeline("a cat", **FAST).images[0]
    height, width = small.shape[:2]
    large = Image.fromarray(to_bytes(small)).resize(
        (width * 3 // 2, height * 3 // 2), Image.Resampling.LANCZOS
    )
    expected = pipeline("a cat", image=large, strength=0.7, **FAST | {"num_inference_steps": 6}).images
    made = pipeline("a cat", hires_scale=1.5, hires_steps=6, hires_upscaler="lanczos", **FAST).images
    np.testing.assert_array_equal(made, expected)


def test_every_image_of_a_batch_has_its_own_small_one(pipeline: StableDiffusionPipeline) -> None:
    options = {"hires_scale": 1.5, "hires_strength": 0.5}
    together = pipeline(["a cat", "a dog"], num_images_per_prompt=2, **FAST, **options)
    assert together.seeds == [3, 4, 5, 6]
    alone = pipeline("a dog", **FAST | {"seed": 5}, **options)
    np.testing.assert_allclose(together.images[2], alone.images[0], atol=1e-5)


def test_its_steps_are_those_of_both(pipeline: StableDiffusionPipeline) -> None:
    request = Request(prompt="a cat", hires_scale=2, hires_strength=0.5, hires_steps=10, **FAST)
    *steps, result = pipeline.stream(request, scheduler="euler")
    assert len(steps) == 4 + 5 == pipeline.num_evaluations(request, scheduler="euler")
    assert isinstance(result, StableDiffusionPipelineOutput)
    assert len(result.timings["unet"]) == 9
    assert result.request.hires_scale == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hires_scale": 0.5}, "hires_scale is 0.5: expected a number from 1 to 16"),
        ({"hires_scale": 2, "hires_strength": 2}, "hires_strength is 2"),
        ({"hires_scale": 2, "hires_strength": 0.1}, "strength is 0.1, so none of the 4 steps would run"),
        (
            {"hires_scale": 2, "hires_upscaler": "magic"},
            "hires_upscaler is 'magic': expected one of latent, lanczos",
        ),
        ({"hires_scale": 2, "hires_steps": 0}, "hires_steps is 0"),
        ({"hires_steps": 5}, "hires_steps has no effect without hires_scale"),
        ({"hires_strength": 0.5}, "hires_strength has no effect without hires_scale"),
        ({"hires_upscaler": "lanczos"}, "hires_upscaler has no effect without hires_scale"),
        ({"mask_blur": 9.0}, "mask_blur has no effect without mask_image or outpaint"),
        ({"composite": False}, "composite has no effect without mask_image or outpaint"),
        (
            {"hires_scale": 2, "image": Image.new("RGB", (64, 64))},
            "to enlarge the image, give height and width",
        ),
        ({"hires_scale": 2, "width": 1280}, "width with hires_scale is 2560: expected at most 2048"),
    ],
)
def test_what_is_refused(pipeline: StableDiffusionPipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        pipeline.stream(Request(prompt="a cat", **FAST, **options))


def test_a_model_without_an_encoder_says_so_before_any_work(model_copy: Path) -> None:
    shutil.rmtree(model_copy / "vae_encoder")
    bare = StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", notify=lambda _: None)
    options = FAST | {"hires_scale": 2}
    with pytest.raises(RequestError, match="hires_upscaler 'lanczos' needs a VAE encoder"):
        bare.stream(Request(prompt="a cat", hires_upscaler="lanczos", **options))
    assert len(bare("a cat", **options).images) == 1


def test_latents_in_the_place_of_an_image(pipeline: StableDiffusionPipeline) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 6, 3), np.float32)
    with pytest.raises(
        RequestError, match="numbers outside of 0 to 1"
    ):  # three columns: it is read as an image
        pipeline("a cat", image=latents, **FAST)
    latents = np.random.default_rng(0).standard_normal((1, 4, 6, 10), np.float32)
    assert pipeline("a cat", image=latents, **FAST).images.shape == (1, 48, 80, 3)
    with pytest.raises(RequestError, match="image has latents of 80x48 pixels; leave out height and width"):
        pipeline("a cat", image=latents, width=96, **FAST)
    with pytest.raises(RequestError, match="mask_image needs pixels"):
        pipeline("a cat", image=latents, mask_image=Image.new("L", (80, 48), 255), **FAST)
    with pytest.raises(RequestError, match="latents of 3 images for 2 prompts"):
        pipeline(["a", "b"], image=np.zeros((3, 4, 6, 10), np.float32), **FAST)
    with pytest.raises(RequestError, match="image has shape"):
        pipeline("a cat", image=np.zeros((1, 5, 6, 10), np.float32), **FAST)


def test_the_second_pass_may_have_another_scheduler(pipeline: StableDiffusionPipeline) -> None:
    options: dict[str, Any] = {"num_inference_steps": 4, "seed": 2, "hires_scale": 2, "output_type": "np"}
    same = pipeline("a cat", scheduler="euler", **options).images
    named = pipeline("a cat", scheduler="euler", hires_scheduler="Euler", **options).images
    np.testing.assert_array_equal(named, same)
    other = pipeline("a cat", scheduler="euler", hires_scheduler="Heun Karras", **options)
    assert not np.array_equal(other.images, same)
    assert len(other.timings["unet"]) == 4 + 3
    assert other.metadata(0).settings["Hires sampler"] == "Heun Karras"
    first_alone = pipeline("a cat", scheduler="heun", hires_scheduler="euler", **options)
    assert len(first_alone.timings["unet"]) == 7 + 2
    assert first_alone.metadata(0).settings["Hires sampler"] == "Euler linspace"


@pytest.mark.parametrize("name", ["no such", "own.json", "/etc/passwd"])
def test_the_scheduler_of_the_second_pass_is_a_name(pipeline: StableDiffusionPipeline, name: str) -> None:
    with pytest.raises(RequestError, match="unknown scheduler"):
        pipeline("a cat", hires_scale=2, hires_scheduler=name)
