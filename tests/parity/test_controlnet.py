"""ControlNets against diffusers' pipelines, on tiny random weights: every task, several at once, guess mode."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdrt import StableDiffusionPipeline
from tests.made_once import MadeOnce
from tests.parity.image_prompts import given_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

LEVEL, LATENTS = 1 / 255, 2e-3
SIZE = (72, 48)
STEPS = {"num_inference_steps": 5}
VARIANTS = ["sd1", "sd2", "xl"]

Controlled = Callable[[str, int], Path]


def control_image(number: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    drawn = Image.new("RGB", size)
    ImageDraw.Draw(drawn).ellipse(
        (20 - 9 * number, 8, 60, 38 - 5 * number), outline=(255, 255 - 99 * number, 255)
    )
    return drawn


@pytest.fixture(scope="session")
def controlnet(made_once: MadeOnce, diffusers_pipeline: Callable[[str], Any]) -> Controlled:
    """A ControlNet for a variant's U-Net, with random weights. The numbers give different ones."""

    def make(variant: str, number: int, folder: Path) -> None:
        from tests.parity.checkpoints import randomise

        unet = diffusers_pipeline(variant).unet
        module = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8, 10))
        randomise(module, 50 + number)
        module.save_pretrained(folder)

    return lambda variant, number: made_once(
        f"controlnet/{variant}-{number}", lambda folder: make(variant, number, folder)
    )


@functools.cache
def ours(source: Path, *controlnets: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        source, provider="cpu", threads=1, controlnet=list(controlnets), notify=lambda _: None, **options
    )


def oracle(theirs: Any, task: str, *controlnets: Path) -> Any:
    kind = "StableDiffusionXL" if "text_encoder_2" in theirs.components else "StableDiffusion"
    nets = [diffusers.ControlNetModel.from_pretrained(one) for one in controlnets]
    parts = {
        key: one
        for key, one in theirs.components.items()
        if key not in ("image_encoder", "feature_extractor")
    }
    if kind == "StableDiffusion":
        parts |= {"feature_extractor": None, "requires_safety_checker": False}
    else:
        parts["force_zeros_for_empty_prompt"] = theirs.config["force_zeros_for_empty_prompt"]
    made = getattr(diffusers, f"{kind}ControlNet{task}Pipeline")(
        **parts, controlnet=nets if len(nets) > 1 else nets[0]
    )
    made.set_progress_bar_config(disable=True)
    return made


def images_of(task: str) -> dict[str, Any]:
    if task == "":
        return {}
    drawn = Image.new("L", SIZE)
    ImageDraw.Draw(drawn).ellipse((20, 8, 60, 38), fill=255)
    more = {"mask_image": drawn} if task == "Inpaint" else {}
    # diffusers' pipelines for SDXL with a ControlNet have other defaults than those without.
    return {"image": given_image(*SIZE), "strength": 0.7, "guidance_scale": 5.0, **more}


def compared(
    variant: str,
    task: str,
    pipeline: StableDiffusionPipeline,
    theirs: Any,
    images: Any,
    **options: Any,
) -> None:
    """Compare images and latents."""
    width, height = SIZE
    call: dict[str, Any] = {
        "prompt": "a lake",
        "negative_prompt": "fog",
        **STEPS,
        **images_of(task),
        **options,
    }
    their_images = {"control_image": images} if task else {"image": images}
    for kind, tolerance in (("np", LEVEL), ("latent", LATENTS)):
        seeds = [3 + index for index in range(options.get("num_images_per_prompt", 1))]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        generator = generators if len(seeds) > 1 else generators[0]
        expected = theirs(
            **call, **their_images, height=height, width=width, generator=generator, output_type=kind
        ).images
        more = {"composite": False} if task == "Inpaint" else {}
        found = pipeline(
            **call, **more, control_image=images, height=height, width=width, seed=3, output_type=kind
        ).images
        error = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
        scale = 1 if kind == "np" else max(1.0, float(np.abs(np.asarray(expected)).max()))
        assert error <= tolerance * scale, (kind, error)


@pytest.mark.parametrize("task", ["", "Img2Img", "Inpaint"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_task(
    variant: str,
    task: str,
    checkpoint: Callable[[str], Path],
    controlnet: Controlled,
    diffusers_pipeline: Callable[[str], Any],
) -> None:
    net = controlnet(variant, 0)
    theirs = oracle(diffusers_pipeline(variant), task, net)
    compared(variant, task, ours(checkpoint(variant), net), theirs, control_image())


@pytest.mark.parametrize(
    "options",
    [
        {"controlnet_conditioning_scale": 0.4},
        {"control_guidance_start": 0.3, "control_guidance_end": 0.7},
        {"guess_mode": True},
        {"guess_mode": True, "guidance_scale": 1.0},
        {"num_images_per_prompt": 2},
    ],
    ids=str,
)
def test_scale_steps_and_guess_mode(
    options: dict[str, Any],
    checkpoint: Callable[[str], Path],
    controlnet: Controlled,
    diffusers_pipeline: Callable[[str], Any],
) -> None:
    net = controlnet("sd1", 0)
    theirs = oracle(diffusers_pipeline("sd1"), "", net)
    compared("sd1", "", ours(checkpoint("sd1"), net), theirs, control_image(), **options)


@pytest.mark.parametrize("variant", ["sd1", "xl"])
def test_several_at_once(
    variant: str,
    checkpoint: Callable[[str], Path],
    controlnet: Controlled,
    diffusers_pipeline: Callable[[str], Any],
) -> None:
    nets = [controlnet(variant, number) for number in (0, 1)]
    theirs = oracle(diffusers_pipeline(variant), "", *nets)
    compared(
        variant,
        "",
        ours(checkpoint(variant), *nets),
        theirs,
        [control_image(0), control_image(1)],
        controlnet_conditioning_scale=[0.5, 0.8],
        control_guidance_start=[0.0, 0.3],
        control_guidance_end=[0.7, 1.0],
        guess_mode=variant == "sd1",
    )


@pytest.mark.parametrize("scheduler", ["HeunDiscreteScheduler", "DDIMScheduler", "UniPCMultistepScheduler"])
def test_shares_of_the_steps_with_other_schedulers(
    scheduler: str,
    checkpoint: Callable[[str], Path],
    controlnet: Controlled,
    diffusers_pipeline: Callable[[str], Any],
) -> None:
    """Heun evaluates the model twice in a step, and diffusers counts evaluations."""
    net = controlnet("sd1", 0)
    theirs = oracle(diffusers_pipeline("sd1"), "", net)
    theirs.scheduler = getattr(diffusers, scheduler).from_config(theirs.scheduler.config)
    pipeline = ours(checkpoint("sd1"), net)
    pipeline.scheduler = json.loads(theirs.scheduler.to_json_string())
    try:
        compared(
            "sd1", "", pipeline, theirs, control_image(), control_guidance_start=0.2, control_guidance_end=0.6
        )
    finally:
        pipeline.scheduler = None


def test_a_controlnet_that_pools(
    checkpoint: Callable[[str], Path],
    controlnet: Controlled,
    diffusers_pipeline: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """diffusers turns on guess mode for lllyasviel's shuffle, but does not weaken its fine layers."""
    module = diffusers.ControlNetModel.from_pretrained(controlnet("sd1", 0))
    module.register_to_config(global_pool_conditions=True)
    module.save_pretrained(tmp_path)
    theirs = oracle(diffusers_pipeline("sd1"), "", tmp_path)
    compared("sd1", "", ours(checkpoint("sd1"), tmp_path), theirs, control_image())


def test_the_control_image_is_scaled_as_in_diffusers(
    checkpoint: Callable[[str], Path],
    controlnet: Controlled,
    diffusers_pipeline: Callable[[str], Any],
) -> None:
    net = controlnet("sd1", 0)
    theirs = oracle(diffusers_pipeline("sd1"), "", net)
    compared("sd1", "", ours(checkpoint("sd1"), net), theirs, control_image(0, (131, 77)))


def test_an_inpainting_model_sees_more_channels_than_its_controlnet(
    checkpoint: Callable[[str], Path],
    controlnet: Controlled,
    diffusers_pipeline: Callable[[str], Any],
) -> None:
    net = controlnet("sd1", 0)
    theirs = oracle(diffusers_pipeline("inpaint"), "Inpaint", net)
    compared("inpaint", "Inpaint", ours(checkpoint("inpaint"), net), theirs, control_image())
