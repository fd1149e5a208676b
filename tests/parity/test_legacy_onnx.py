"""Folders of diffusers' first converter to ONNX, and of others like it, against diffusers' torch pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.model_folder.graph_configs import config_of_graph
from tests.made_once import MadeOnce
from tests.parity.image_prompts import HALF_LEVEL, given_image
from tests.parity.legacy_onnx import LEGACY, make_legacy

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

TEXT_TO_IMAGE = [name for name, row in LEGACY.items() if row.variant in ("sd1", "sd2")]
# Measured: 0.0049 with every component in float16, 0.00001 in float32.
HALF_PRECISION = 0.01
OPTIONS: dict[str, Any] = {"num_inference_steps": 4, "output_type": "np"}


@pytest.fixture(scope="module")
def legacy(checkpoint: Callable[[str], Path], made_once: MadeOnce) -> Callable[[str], Path]:
    """The folder of a row of `LEGACY`."""
    return lambda name: made_once(
        f"legacy/{name}",
        lambda folder: make_legacy(checkpoint(LEGACY[name].variant), folder, LEGACY[name]),
    )


def opened(folder: Path, notify: Callable[[str], None] = lambda _: None) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1, notify=notify)


def limit(name: str) -> float:
    return HALF_PRECISION if LEGACY[name].halves else HALF_LEVEL


def apart(ours: Any, theirs: Any, **options: Any) -> float:
    """The largest difference between sdrt's image and diffusers'."""
    found = ours("a lake", seed=3, **OPTIONS, **options).images
    options.pop("composite", None)
    expected = theirs("a lake", generator=torch.Generator("cpu").manual_seed(3), **OPTIONS, **options).images
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def other_task(name: str, theirs: Any) -> Any:
    pipeline = getattr(diffusers, name)(**theirs.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("name", TEXT_TO_IMAGE)
def test_text_to_image(
    legacy: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], name: str
) -> None:
    theirs = diffusers_pipeline(LEGACY[name].variant)
    assert apart(opened(legacy(name)), theirs, height=64, width=64) <= limit(name)


@pytest.mark.parametrize("name", TEXT_TO_IMAGE)
def test_image_to_image(
    legacy: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], name: str
) -> None:
    """The encoders draw their own noise. With a seed, the images are those of torch nevertheless."""
    theirs = other_task("StableDiffusionImg2ImgPipeline", diffusers_pipeline(LEGACY[name].variant))
    assert apart(opened(legacy(name)), theirs, image=given_image(64, 64), strength=0.7) <= limit(name)


def test_inpainting(legacy: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any]) -> None:
    theirs = other_task("StableDiffusionInpaintPipeline", diffusers_pipeline("inpaint"))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 40, 40))
    options = {"image": given_image(64, 64), "mask_image": mask, "height": 64, "width": 64, "strength": 1.0}
    assert apart(opened(legacy("inpaint")), theirs, composite=False, **options) <= HALF_LEVEL


def test_upscaling(legacy: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any]) -> None:
    image = given_image(24, 24)
    assert apart(opened(legacy("upscale")), diffusers_pipeline("upscale"), image=image) <= HALF_LEVEL


def test_one_image_without_guidance_in_a_graph_for_two(
    legacy: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any]
) -> None:
    """The second half of the batch is filled up. Three images need two runs."""
    ours, theirs = opened(legacy("fixed")), diffusers_pipeline("sd1")
    size = {"height": 64, "width": 64}
    assert apart(ours, theirs, guidance_scale=1.0, **size) <= HALF_LEVEL
    one = ours("a lake", seed=3, guidance_scale=1.0, **OPTIONS, **size).images
    three = ours("a lake", seed=3, guidance_scale=1.0, num_images_per_prompt=3, **OPTIONS, **size).images
    assert np.abs(three[0] - one[0]).max() <= HALF_LEVEL
    assert np.abs(three[1] - three[2]).max() > 0.01


def test_a_graph_for_one_size_says_so(legacy: Callable[[str], Path]) -> None:
    ours = opened(legacy("fixed"))
    assert ours.plan(Request(prompt="")).request.size == (64, 64)
    with pytest.raises(
        RequestError, match="image is 128x64, but unet was exported for one size: expected width 64"
    ):
        ours("a lake", height=64, width=128, num_inference_steps=1)


def test_what_is_said(legacy: Callable[[str], Path]) -> None:
    """The safety checker is named once. A timestep of 16 bits cannot hold every fraction."""
    messages: list[str] = []
    ours = opened(legacy("fp16"), messages.append)
    assert ours.plan(Request(prompt="")).request.size == (512, 512)
    for _ in range(2):
        ours("a lake", seed=3, height=64, width=64, num_inference_steps=2)
        ours.close()
    assert messages == [
        "the safety checker of fp16 is incomplete: safety_checker/model.onnx is missing. "
        "Images are not filtered"
    ]
    ours(
        "a lake",
        seed=3,
        height=64,
        width=64,
        num_inference_steps=3,
        scheduler="euler",
        spacing="karras",
    )
    assert "takes timesteps in float16, but the scheduler uses fractions" in messages[-1]


@pytest.mark.parametrize("variant", ["sd1", "sd2", "inpaint", "upscale"])
def test_graphs_tell_what_configs_say(
    optimum_folder: Callable[[str], Path], sdrt_folder: Callable[[str], Path], variant: str
) -> None:
    """optimum and sdrt write configs beside their graphs, so they can be compared."""
    # optimum cannot export the upscaler.
    folder = (sdrt_folder if variant == "upscale" else optimum_folder)(variant)
    for part in ("text_encoder", "unet", "vae_decoder"):
        path = folder / part / "model.onnx"
        config = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
        found = config_of_graph(path, STABLE_DIFFUSION)
        levels, theirs = found.pop("block_out_channels", []), config.get("block_out_channels", [])
        assert len(levels) == len(theirs)
        assert found == {key: config[key] for key in found}
        assert len(found) >= 1
