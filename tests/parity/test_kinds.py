"""U-Nets that see an image beside the latents, against diffusers' pipelines for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import RequestError, StableDiffusionPipeline
from sdrt.model_folder.folder import ModelFolder
from tests.parity.image_prompts import HALF_LEVEL, SCHEDULERS, given_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

SIZES = {"pix2pix": (72, 48), "upscale": (24, 20)}


def open_folder(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1, notify=lambda _: None)


def worst(folder: Path, theirs: Any, seed: int, scheduler: Any = None, **options: Any) -> float:
    found = open_folder(folder)(seed=seed, output_type="np", scheduler=scheduler, **options).images
    generator = torch.Generator("cpu").manual_seed(seed)
    expected = theirs(generator=generator, output_type="np", **options).images
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("name", ["pndm", "ddim", "euler_a", "heun", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("variant", SIZES)
def test_schedulers(
    sdrt_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], variant: str, name: str
) -> None:
    theirs, (kind, extra) = diffusers_pipeline(variant), SCHEDULERS[name]
    before = theirs.scheduler
    try:
        theirs.scheduler = getattr(diffusers, kind).from_config(before.config, **extra)
        config = json.loads(theirs.scheduler.to_json_string())
        options = {"prompt": "a lake", "image": given_image(*SIZES[variant]), "num_inference_steps": 7}
        assert worst(sdrt_folder(variant), theirs, 3, config, **options) <= HALF_LEVEL
    finally:
        theirs.scheduler = before


@pytest.mark.parametrize(
    "options",
    [
        {"image_guidance_scale": 2.5, "guidance_scale": 4.0, "negative_prompt": "fog"},
        {"image_guidance_scale": 1.0},
        {"image_guidance_scale": 0.5},
        {"guidance_scale": 1.0},
        {"prompt": ["a lake", "a red house"]},
    ],
    ids=str,
)
def test_instructions(
    sdrt_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], options: dict[str, Any]
) -> None:
    options = {
        "prompt": "a lake",
        "num_inference_steps": 5,
        "image": given_image(*SIZES["pix2pix"]),
    } | options
    theirs = diffusers_pipeline("pix2pix")
    if isinstance(options["prompt"], str):
        assert worst(sdrt_folder("pix2pix"), theirs, 5, **options) <= HALF_LEVEL
        return
    prompts = options.pop("prompt")
    together = open_folder(sdrt_folder("pix2pix"))(prompts, seed=5, output_type="np", **options).images
    for number, prompt in enumerate(prompts):
        generator = torch.Generator("cpu").manual_seed(5 + number)
        expected = theirs(prompt, generator=generator, output_type="np", **options).images[0]
        assert float(np.abs(together[number] - expected).max()) <= HALF_LEVEL


@pytest.mark.parametrize(
    "options",
    [{"noise_level": 0}, {"noise_level": 350, "negative_prompt": "fog"}, {"guidance_scale": 1.0}],
    ids=str,
)
def test_noise_levels(
    sdrt_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], options: dict[str, Any]
) -> None:
    options = {
        "prompt": "a lake",
        "num_inference_steps": 5,
        "image": given_image(*SIZES["upscale"]),
    } | options
    assert worst(sdrt_folder("upscale"), diffusers_pipeline("upscale"), 5, **options) <= HALF_LEVEL


def test_requests_may_be_fitted_again_and_put_together(sdrt_folder: Callable[[str], Path]) -> None:
    pipeline = open_folder(sdrt_folder("pix2pix"))
    options: dict[str, Any] = {"image": given_image(*SIZES["pix2pix"]), "num_inference_steps": 2, "seed": 1}
    made = pipeline("snow AND night:0.5", guidance_scale=0, output_type="np", **options)
    *_, again = pipeline.stream(made.request)
    np.testing.assert_array_equal(made.images, again.images)  # type: ignore[union-attr]


def test_an_upscaled_image_is_four_times_as_large(sdrt_folder: Callable[[str], Path]) -> None:
    made = open_folder(sdrt_folder("upscale"))("a lake", image=given_image(13, 11), num_inference_steps=1)
    assert made.images[0].size == (52, 44)
    sized = open_folder(sdrt_folder("upscale"))(
        "a lake", image=given_image(13, 11), num_inference_steps=1, width=80, height=40
    )
    assert sized.images[0].size == (80, 40)


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("pix2pix", {}, "made for instructions; give image"),
        (
            "pix2pix",
            {"image": given_image(), "strength": 0.5},
            "strength has no effect: this model is made for",
        ),
        (
            "pix2pix",
            {"image": given_image(), "mask_image": given_image()},
            "mask_image has no effect: this model is made for",
        ),
        (
            "pix2pix",
            {"image": given_image(), "outpaint": "left=8"},
            "outpaint has no effect: this model is made for",
        ),
        (
            "pix2pix",
            {"image": given_image(), "noise_level": 5},
            "noise_level has no effect: this model is made for",
        ),
        ("upscale", {}, "made for upscaling; give image"),
        (
            "upscale",
            {"image": given_image(), "noise_level": 351},
            "noise_level is 351: expected .* from 0 to 350",
        ),
        (
            "upscale",
            {"image": given_image(), "image_guidance_scale": 2},
            "image_guidance_scale has no effect",
        ),
        ("upscale", {"image": given_image(600, 600)}, "height is 2400: expected at most 2048"),
        (
            "sd1",
            {"image": given_image(), "noise_level": 5},
            "noise_level has no effect: this model is made for",
        ),
        ("inpaint", {"image": given_image()}, "made for inpainting; give mask_image"),
    ],
)
def test_what_a_kind_of_model_is_not_for(
    sdrt_folder: Callable[[str], Path], variant: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        open_folder(sdrt_folder(variant))("a lake", **options)


@pytest.mark.parametrize(
    ("variant", "pipeline"),
    [
        ("sd1", "StableDiffusionPipeline"),
        ("inpaint", "StableDiffusionInpaintPipeline"),
        ("pix2pix", "StableDiffusionInstructPix2PixPipeline"),
        ("upscale", "StableDiffusionUpscalePipeline"),
    ],
)
def test_the_index_names_diffusers_pipeline(
    sdrt_folder: Callable[[str], Path], variant: str, pipeline: str
) -> None:
    assert ModelFolder.open(sdrt_folder(variant)).index["_class_name"] == pipeline
