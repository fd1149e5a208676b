"""`denoising_end` and `denoising_start` against diffusers' pipelines for SDXL, with the tiny weights of SD 1.

diffusers has these arguments only there. Its pipelines run any U-Net, if they need not make SDXL's `time_ids`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from tests.parity.image_prompts import HALF_LEVEL, given_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.jit:DeprecationWarning"),
]

# Without LMS: diffusers begins a later run with the coefficients of four slopes, though it has one.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-linspace": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "euler-karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2-a": ("KDPM2AncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp-2m-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "dpmpp-2s": ("DPMSolverSinglestepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {"clip_sample": False}),
}
STEPS = 11
# As a share of the largest latent. The largest measured difference is 3.5e-6, after eleven steps in float32.
CLOSE = 1e-5


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE * float(np.abs(expected).max()))


def without_time_ids(kind: Any) -> Any:
    """The pipeline class, for a U-Net that takes no `time_ids`."""

    class Pipeline(kind):  # type: ignore[misc]
        def _get_add_time_ids(self, *_: Any, **__: Any) -> Any:
            none = torch.zeros(1, 6)
            return none if kind is diffusers.StableDiffusionXLPipeline else (none, none)

    return Pipeline


class Oracle:
    """diffusers' pipelines with `denoising_end` and `denoising_start`, over the components of another pipeline."""

    def __init__(self, theirs: Any, scheduler: Any) -> None:
        self.parts = {"vae": theirs.vae, "unet": theirs.unet, "scheduler": scheduler}
        self.parts |= dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
        self.embeds = theirs.encode_prompt("a lake", "cpu", 1, True, "fog")

    def __call__(self, kind: str, *, seed: int, **options: Any) -> np.ndarray:
        pipeline = without_time_ids(getattr(diffusers, kind))(**self.parts, add_watermarker=False)
        pipeline.set_progress_bar_config(disable=True)
        positive, negative = self.embeds
        made = pipeline(
            prompt_embeds=positive,
            negative_prompt_embeds=negative,
            pooled_prompt_embeds=torch.zeros(1, 1),
            negative_pooled_prompt_embeds=torch.zeros(1, 1),
            generator=torch.Generator("cpu").manual_seed(seed),
            num_inference_steps=STEPS,
            guidance_scale=7.5,
            **options,
        ).images
        return made.numpy() if isinstance(made, torch.Tensor) else np.asarray(made)


Made = tuple[Callable[..., np.ndarray], Oracle]


@pytest.fixture(params=SCHEDULERS)
def both(
    request: pytest.FixtureRequest,
    sdrt_folder: Callable[[str], Path],
    diffusers_pipeline: Callable[[str], Any],
) -> Made:
    """sdrt's pipeline and diffusers', with one scheduler."""
    return made_with(request.param, sdrt_folder, diffusers_pipeline)


def made_with(
    name: str, sdrt_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any]
) -> Made:
    theirs, (kind, extra) = diffusers_pipeline("sd1"), SCHEDULERS[name]
    scheduler = getattr(diffusers, kind).from_config(theirs.scheduler.config, **extra)
    config = json.loads(scheduler.to_json_string())
    pipeline = StableDiffusionPipeline.from_pretrained(
        sdrt_folder("sd1"), provider="cpu", threads=1, notify=lambda _: None
    )

    def ours(**options: Any) -> np.ndarray:
        images: np.ndarray = pipeline(
            "a lake", negative_prompt="fog", num_inference_steps=STEPS, scheduler=config, **options
        ).images
        return images

    return ours, Oracle(theirs, scheduler)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_two_pipelines_make_one_image(both: Made, share: float) -> None:
    """The first half's latents are diffusers', and so is the image that the second half makes of them."""
    ours, oracle = both
    expected = oracle("StableDiffusionXLPipeline", seed=3, denoising_end=share, output_type="latent")
    latents = ours(seed=3, denoising_end=share, output_type="latent")
    assert_close(latents, expected)
    whole = oracle(
        "StableDiffusionXLImg2ImgPipeline",
        seed=4,
        image=torch.from_numpy(expected),
        denoising_start=share,
        output_type="np",
    )
    made = ours(seed=4, image=expected, denoising_start=share, output_type="np")
    assert np.abs(made - whole).max() <= HALF_LEVEL


@pytest.mark.parametrize("both", ["euler", "heun", "ddim", "dpmpp-2m"], indirect=True)
@pytest.mark.parametrize(
    "part",
    [
        {"strength": 0.7, "denoising_end": 0.8},
        {"denoising_start": 0.4, "denoising_end": 0.8},
        {"denoising_start": 0.4, "strength": 0.2},
        {"strength": 0.7, "denoising_end": 1.0},
    ],
    ids=str,
)
def test_a_part_of_a_run_from_pixels(both: Made, part: dict[str, float]) -> None:
    ours, oracle = both
    options = {"image": given_image(), "output_type": "latent", **part}
    expected = oracle("StableDiffusionXLImg2ImgPipeline", seed=3, **options)
    assert_close(ours(seed=3, **options), expected)


@pytest.mark.parametrize("both", ["euler", "heun", "pndm"], indirect=True)
def test_inpainting_by_two_pipelines(both: Made) -> None:
    ours, oracle = both
    image = given_image()
    mask = np.zeros((image.height, image.width), np.uint8)
    mask[16:48, 8:40] = 255
    kind, share = "StableDiffusionXLInpaintPipeline", 0.55
    size = {"height": image.height, "width": image.width}
    first = {"image": image, "strength": 0.9999, "denoising_end": share, "output_type": "latent"}
    masks = {"mask_image": mask}, {"mask_image": torch.from_numpy(mask / np.float32(255))[None, None]}
    expected = oracle(kind, seed=3, **first, **masks[1], **size)
    assert_close(ours(seed=3, composite=False, **first, **masks[0]), expected)
    second = {"denoising_start": share, "output_type": "np"}
    whole = oracle(kind, seed=4, image=torch.from_numpy(expected), **second, **masks[1], **size)
    made = ours(seed=4, image=expected, composite=False, **second, **masks[0])
    assert np.abs(made - whole).max() <= HALF_LEVEL
