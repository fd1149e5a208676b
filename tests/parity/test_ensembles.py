"""SDXL's base and refiner as an ensemble, against diffusers' two pipelines, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from tests.parity.image_prompts import given_image
from tests.parity.test_sdxl import IMAGE, LATENTS, LEVEL, PROMPT, SIZES, load, mask, oracle

torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

CALL: dict[str, Any] = {
    "prompt": PROMPT,
    "negative_prompt": "fog",
    "num_inference_steps": 9,
    "guidance_scale": 4.0,
}
SWITCH = 0.7

Made = tuple[StableDiffusionPipeline, StableDiffusionPipeline, Any, Any]


@pytest.fixture
def models(sdrt_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any]) -> Made:
    """Base and refiner of sdrt, then of diffusers."""
    names = ("xl", "xl-refiner")
    base, refiner = (load(sdrt_folder(name)) for name in names)
    return base, refiner, *map(diffusers_pipeline, names)


def generator() -> Any:
    return torch.Generator("cpu").manual_seed(5)


@pytest.mark.parametrize("scores", [{}, {"aesthetic_score": 8.0, "negative_aesthetic_score": 1.0}], ids=str)
def test_text_to_image(models: Made, scores: dict[str, float]) -> None:
    """diffusers' two calls, sdrt's two calls, and sdrt's one call, which are the same with Euler."""
    base, refiner, their_base, their_refiner = models
    first = {**CALL, **IMAGE, **SIZES, "denoising_end": SWITCH, "output_type": "latent"}
    expected = their_base(generator=generator(), **first).images
    half = base(seed=5, **first).images
    assert np.abs(half - expected.numpy()).max() <= LATENTS
    # A model with a score has no target size.
    sizes = {name: size for name, size in SIZES.items() if name != "target_size"}
    second = {**CALL, **sizes, **scores, "denoising_start": SWITCH, "output_type": "np"}
    whole = oracle(their_refiner, "Img2Img")(image=expected, generator=generator(), **second).images
    assert np.abs(refiner(image=half, seed=5, **second).images - whole).max() <= LEVEL
    once = {**CALL, **IMAGE, **SIZES, **scores, "refiner": refiner, "refiner_switch": SWITCH}
    made = base(seed=5, output_type="np", **once)
    assert np.abs(made.images - whole).max() <= LEVEL
    alone = base(seed=5, output_type="np", **CALL, **IMAGE, **SIZES).images
    assert np.abs(made.images - alone).max() > 10 * LEVEL
    if scores:
        # The base knows no score, but the image depends on it.
        assert made.metadata(0).settings["Aesthetic score"] == "8.0"


def test_image_to_image(models: Made) -> None:
    base, refiner, their_base, their_refiner = models
    first = {**CALL, "image": given_image(), "strength": 0.8}
    end = {"denoising_end": SWITCH, "output_type": "latent"}
    latents = oracle(their_base, "Img2Img")(generator=generator(), **first, **end).images
    second = {**CALL, "denoising_start": SWITCH, "output_type": "np"}
    whole = oracle(their_refiner, "Img2Img")(image=latents, generator=generator(), **second).images
    made = base(seed=5, refiner=refiner, refiner_switch=SWITCH, output_type="np", **first).images
    assert np.abs(made - whole).max() <= LEVEL


def test_inpainting_in_two_calls(models: Made) -> None:
    base, refiner, their_base, their_refiner = models
    masked = {"mask_image": mask()}
    first = {**CALL, **masked, "image": given_image(), "strength": 0.9}
    first |= {"denoising_end": SWITCH, "output_type": "latent"}
    latents = oracle(their_base, "Inpaint")(generator=generator(), **IMAGE, **first).images
    half = base(seed=5, composite=False, **first).images
    assert np.abs(half - latents.numpy()).max() <= LATENTS
    second = {**CALL, **masked, "denoising_start": SWITCH, "output_type": "np"}
    whole = oracle(their_refiner, "Inpaint")(image=latents, generator=generator(), **IMAGE, **second).images
    made = refiner(image=half, seed=5, composite=False, **second).images
    assert np.abs(made - whole).max() <= LEVEL


def test_a_refiner_of_another_family_is_refused(models: Made, sdrt_folder: Callable[[str], Path]) -> None:
    base = models[0]
    with pytest.raises(ValueError, match="refiner sd1 has latents of another kind"):
        base(refiner=str(sdrt_folder("sd1")), **CALL)
