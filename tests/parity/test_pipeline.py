"""The final image against diffusers at the same seed: at most one level of 255 apart.

Over folders of `sdrt export`, and over optimum's, which have no `sdrt.json`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from sdrt import RequestError, StableDiffusionPipeline

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Each is half a minute of exports.
DEEP, MIXED = (pytest.param(name, marks=pytest.mark.full) for name in ("deep", "mixed"))
TEXT_TO_IMAGE = ["sd1", "sd2", DEEP, MIXED]
LEVEL = 1 / 255
PROMPT = "a photo of an astronaut riding a horse on mars"
SIZES = {"sd1": (80, 96), "sd2": (96, 64), "deep": (128, 96), "mixed": (80, 144)}


@functools.cache
def load(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=lambda message: None
    )


def oracle(pipeline: Any, *, seeds: list[int], **options: Any) -> np.ndarray:
    """diffusers' images [N, H, W, 3], one generator per image."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    images: np.ndarray = pipeline(generator=generators, output_type="np", **options).images
    return images


def compare(
    ours: StableDiffusionPipeline, theirs: Any, *, seed: int, scheduler: str | None = None, **options: Any
) -> None:
    got = ours(seed=seed, scheduler=scheduler, output_type="np", **options)
    expected = oracle(theirs, seeds=got.seeds, **options)
    assert got.images.shape == expected.shape
    assert np.ptp(expected) > 0.5
    assert np.abs(got.images - expected).max() <= LEVEL


@pytest.mark.parametrize("variant", TEXT_TO_IMAGE)
def test_default_scheduler(
    any_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], variant: str
) -> None:
    options = {"prompt": PROMPT, "negative_prompt": "blurry", "num_inference_steps": 20}
    compare(load(any_folder(variant)), diffusers_pipeline(variant), seed=7, **options)


@pytest.mark.parametrize("size", [(72, 88), (8, 104)], ids=str)
@pytest.mark.parametrize("variant", TEXT_TO_IMAGE)
def test_any_multiple_of_eight(
    sdrt_folder: Callable[[str], Path],
    diffusers_pipeline: Callable[[str], Any],
    variant: str,
    size: tuple[int, int],
) -> None:
    options = {"prompt": PROMPT, "height": size[0], "width": size[1], "num_inference_steps": 6}
    compare(load(sdrt_folder(variant)), diffusers_pipeline(variant), seed=7, **options)


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
@pytest.mark.parametrize("variant", ["sd1", "sd2", MIXED])
def test_clip_skip(
    sdrt_folder: Callable[[str], Path],
    diffusers_pipeline: Callable[[str], Any],
    variant: str,
    clip_skip: int,
) -> None:
    options = {"prompt": PROMPT, "negative_prompt": "bad", "clip_skip": clip_skip, "num_inference_steps": 6}
    compare(load(sdrt_folder(variant)), diffusers_pipeline(variant), seed=7, **options)


@pytest.mark.parametrize("variant", TEXT_TO_IMAGE)
def test_both_exporters_give_one_image(
    sdrt_folder: Callable[[str], Path], optimum_folder: Callable[[str], Path], variant: str
) -> None:
    options: dict[str, Any] = {"num_inference_steps": 6, "seed": 1, "output_type": "np"}
    ours, theirs = (load(get(variant))(PROMPT, **options).images for get in (sdrt_folder, optimum_folder))
    assert np.abs(ours - theirs).max() <= LEVEL


@pytest.mark.parametrize("variant", TEXT_TO_IMAGE)
def test_batch_size_and_guidance(
    any_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], variant: str
) -> None:
    height, width = SIZES[variant]
    options = {
        "prompt": [PROMPT, ""],
        "negative_prompt": ["", "bad anatomy, extra fingers"],
        "num_images_per_prompt": 2,
        "num_inference_steps": 5,
        "guidance_scale": 3.0,
        "height": height,
        "width": width,
    }
    compare(load(any_folder(variant)), diffusers_pipeline(variant), seed=2**32 - 4, **options)


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0])
def test_without_guidance(
    any_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], guidance_scale: float
) -> None:
    options = {"prompt": PROMPT, "guidance_scale": guidance_scale, "num_inference_steps": 5}
    compare(load(any_folder("sd1")), diffusers_pipeline("sd1"), seed=1, **options)


SCHEDULERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("variant", ["sd1", "sd2"])
def test_schedulers(
    any_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], variant: str, name: str
) -> None:
    theirs, (kind, extra) = diffusers_pipeline(variant), SCHEDULERS[name]
    before = theirs.scheduler
    try:
        theirs.scheduler = getattr(diffusers, kind).from_config(before.config, **extra)
        options: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 12}
        compare(load(any_folder(variant)), theirs, seed=3, scheduler=name, **options)
    finally:
        theirs.scheduler = before


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_eta(
    any_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], eta: float
) -> None:
    options = {"prompt": PROMPT, "eta": eta, "num_inference_steps": 8, "num_images_per_prompt": 2}
    compare(load(any_folder("sd2")), diffusers_pipeline("sd2"), seed=11, **options)


@pytest.mark.parametrize("variant", ["sd1", DEEP])
def test_latents_and_callback(
    any_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], variant: str
) -> None:
    """Given latents start the run, and every step's latents are diffusers'."""
    ours, theirs = load(any_folder(variant)), diffusers_pipeline(variant)
    shape = ours("x", num_inference_steps=1, output_type="latent").images.shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    seen: dict[str, list[tuple[int, float, np.ndarray]]] = {"ours": [], "theirs": []}

    def watch(side: str) -> Callable[..., dict[str, Any]]:
        def callback(_: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            seen[side].append((index, float(timestep), np.array(tensors["latents"])))
            return tensors

        return callback

    options: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 6, "output_type": "latent"}
    ours(latents=noise.numpy(), seed=0, callback_on_step_end=watch("ours"), **options)
    theirs(latents=noise, callback_on_step_end=watch("theirs"), **options)
    assert [step[:2] for step in seen["ours"]] == [step[:2] for step in seen["theirs"]]
    for got, expected in zip(seen["ours"], seen["theirs"], strict=True):
        # Float32 sums in another order, up to 6 steps in a row: 3e-6 of the largest on one processor, 2e-6 on another.
        assert np.abs(got[2] - expected[2]).max() <= 1e-5 * np.abs(expected[2]).max()


def test_embeddings_from_diffusers(
    any_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any]
) -> None:
    """Embeddings made elsewhere, of another length than the tokenizer's, do here."""
    theirs = diffusers_pipeline("sd1")
    with torch.no_grad():
        embeds, negative = theirs.encode_prompt(PROMPT, "cpu", 1, True, "bad")
    embeds, negative = embeds[:, :50], negative[:, :50]
    options = {"num_inference_steps": 4}
    ours = load(any_folder("sd1"))(
        prompt_embeds=embeds.numpy(),
        negative_prompt_embeds=negative.numpy(),
        seed=0,
        output_type="np",
        **options,
    )
    expected = oracle(theirs, seeds=[0], prompt_embeds=embeds, negative_prompt_embeds=negative, **options)
    assert np.abs(ours.images - expected).max() <= LEVEL


def test_what_a_traced_folder_cannot_do_is_refused(optimum_folder: Callable[[str], Path]) -> None:
    ours = load(optimum_folder("sd1"))
    with pytest.raises(RequestError, match="multiple of 16; export the checkpoint again"):
        ours(PROMPT, height=72, width=88)
    with pytest.raises(
        RequestError, match="exported without it: leave it out, or export the checkpoint again"
    ):
        ours(PROMPT, clip_skip=1)


@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_guidance_rescale(
    sdrt_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], rescale: float
) -> None:
    options: dict[str, Any] = {"num_inference_steps": 4, "guidance_rescale": rescale, "output_type": "np"}
    theirs = diffusers_pipeline("sd2")("a lake", generator=torch.Generator("cpu").manual_seed(3), **options)
    ours = StableDiffusionPipeline.from_pretrained(sdrt_folder("sd2"), provider="cpu", notify=lambda _: None)
    assert np.abs(ours("a lake", seed=3, **options).images - theirs.images).max() <= LEVEL


@pytest.mark.parametrize(
    ("scheduler", "levels"),
    [
        ("EulerDiscreteScheduler", {"timesteps": [990, 700, 401, 33]}),
        ("EulerDiscreteScheduler", {"sigmas": [13.1, 4.4, 0.6, 0.0]}),
        ("HeunDiscreteScheduler", {"timesteps": [990, 700, 401, 33]}),
        ("DDPMScheduler", {"timesteps": [990, 700, 401, 33]}),
        ("DPMSolverMultistepScheduler", {"timesteps": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]}),
        ("DPMSolverSinglestepScheduler", {"timesteps": [999, 730, 443, 13]}),
        ("TCDScheduler", {"timesteps": [999, 730, 443, 19]}),
    ],
    ids=str,
)
def test_timesteps_and_sigmas_of_the_callers_own(
    sdrt_folder: Callable[[str], Path],
    diffusers_pipeline: Callable[[str], Any],
    scheduler: str,
    levels: dict[str, Any],
) -> None:
    theirs = diffusers_pipeline("sd1")
    before = theirs.scheduler
    ours = StableDiffusionPipeline.from_pretrained(sdrt_folder("sd1"), provider="cpu", notify=lambda _: None)
    try:
        theirs.scheduler = getattr(diffusers, scheduler).from_config(before.config)
        config = json.loads(theirs.scheduler.to_json_string())
        expected = theirs(
            "a lake", generator=torch.Generator("cpu").manual_seed(3), output_type="np", **levels
        ).images
    finally:
        theirs.scheduler = before
    made = ours("a lake", seed=3, output_type="np", scheduler=config, **levels).images
    assert np.abs(made - expected).max() <= LEVEL
