"""Inpainting against diffusers' pipeline, with a U-Net that sees masks and one that does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdrt import RequestError, StableDiffusionPipeline
from tests.parity.image_prompts import HALF_LEVEL, SCHEDULERS, given_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

SIZE = (72, 48)


def mask() -> Image.Image:
    drawn = Image.new("L", SIZE)
    ImageDraw.Draw(drawn).ellipse((20, 8, 60, 38), fill=255)
    return drawn


@pytest.mark.parametrize("name", ["pndm", "ddim", "euler_a", "heun", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("variant", ["sd1", "inpaint"])
def test_schedulers_and_strengths(
    sdrt_folder: Callable[[str], Path],
    diffusers_pipeline: Callable[[str], Any],
    variant: str,
    name: str,
    strength: float,
) -> None:
    components = dict(diffusers_pipeline(variant).components)
    kind, extra = SCHEDULERS[name]
    components["scheduler"] = getattr(diffusers, kind).from_config(components["scheduler"].config, **extra)
    theirs = diffusers.StableDiffusionInpaintPipeline(**components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    width, height = SIZE
    options: dict[str, Any] = {
        "prompt": "a lake",
        "image": given_image(*SIZE),
        "mask_image": mask(),
        "strength": strength,
        "num_inference_steps": 7,
        "output_type": "np",
    }
    expected = theirs(
        height=height, width=width, generator=torch.Generator("cpu").manual_seed(3), **options
    ).images
    ours = StableDiffusionPipeline.from_pretrained(
        sdrt_folder(variant), provider="cpu", notify=lambda _: None
    )
    config = json.loads(components["scheduler"].to_json_string())
    found = ours(seed=3, scheduler=config, composite=False, **options).images
    assert float(np.abs(found - expected).max()) <= HALF_LEVEL


@pytest.mark.parametrize("width", [1, 3, 7])
@pytest.mark.parametrize("variant", ["sd1", "inpaint"])
def test_a_thin_line_is_repainted_by_either_u_net(
    sdrt_folder: Callable[[str], Path], variant: str, width: int
) -> None:
    """diffusers samples the mask, and misses lines that do not meet the first pixel of a latent."""
    told: list[str] = []
    ours = StableDiffusionPipeline.from_pretrained(
        sdrt_folder(variant), provider="cpu", notify=told.append, verify=False
    )
    line = Image.new("L", SIZE)
    line.paste(255, (33, 0, 33 + width, SIZE[1]))
    white = np.asarray(line) > 0
    options: dict[str, Any] = {
        "image": given_image(*SIZE),
        "mask_image": line,
        "num_inference_steps": 4,
        "seed": 3,
        "output_type": "np",
    }

    def under_it(prompt: str, **more: Any) -> np.ndarray:
        made: np.ndarray = ours(prompt, **options, **more).images[0]
        return made[white]

    # Where the prompt does not matter, only the known image is decoded.
    found, other = under_it("a lake"), under_it("many dogs")
    assert np.abs(found - other).mean() > 0.01
    assert not told
    sampled = under_it("a lake", composite=False)
    assert "which diffusers' rule misses" in told[0]
    if variant == "sd1":
        assert np.abs(sampled - under_it("many dogs", composite=False)).mean() < 0.01
    else:
        # This U-Net makes the whole image, and reads the mask from a channel.
        assert np.abs(sampled - found).mean() > 1e-4


def test_a_model_for_inpainting_says_what_it_needs(sdrt_folder: Callable[[str], Path]) -> None:
    ours = StableDiffusionPipeline.from_pretrained(
        sdrt_folder("inpaint"), provider="cpu", notify=lambda _: None
    )
    with pytest.raises(RequestError, match="made for inpainting; give image and mask_image"):
        ours("a lake")
