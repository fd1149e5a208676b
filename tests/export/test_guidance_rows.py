"""The rows outside the guidance interval, with everything that adds rows or inputs to the U-Net."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdrt import GenerationStep, Request, StableDiffusionPipeline
from tests.made_once import MadeOnce
from tests.parity.checkpoints import randomise
from tests.parity.ip_adapters import adapter_file, image_encoder_folder
from tests.parity.t2i_adapters import write_adapter
from tests.runtime.run.rows import counted_rows

Checkpoint = Callable[[str], Path]
STEPS: dict[str, Any] = {"num_inference_steps": 4, "seed": 3, "output_type": "np", "scheduler": "euler"}
HALF = {"guidance_interval": (0.25, 0.75), **STEPS}
NONE = {"guidance_interval": (0, 0.1), **STEPS}


def drawn(mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (64, 64))
    ImageDraw.Draw(image).ellipse((10, 8, 50, 38), fill="white")
    return image


def opened(source: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        source, provider="cpu", threads=1, notify=lambda _: None, **options
    )


@pytest.fixture(scope="module")
def controlnet(checkpoint: Checkpoint, made_once: MadeOnce) -> Path:
    def make(folder: Path) -> None:
        unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint("sd1") / "unet")
        module = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8, 10))
        randomise(module, 50).save_pretrained(folder)

    return made_once("guidance/net", make)


@pytest.mark.parametrize(
    ("mode", "low_vram", "unet", "net"),
    [
        ("balanced", False, [1, 2, 2, 1], [1, 2, 2, 1]),
        # It guides only the rows with the prompt.
        ("control", False, [1, 2, 2, 1], [1, 1, 1, 1]),
        ("balanced", True, [1] * 6, [1] * 6),
    ],
)
def test_controlnets(
    checkpoint: Checkpoint, controlnet: Path, mode: str, low_vram: bool, unet: list[int], net: list[int]
) -> None:
    given = {"control_image": drawn(), "control_mode": mode}
    with opened(checkpoint("sd1"), controlnet=controlnet, low_vram=low_vram) as pipeline:
        with counted_rows() as rows, counted_rows("controlnet") as of_net:
            half = pipeline("a lake", **given, **HALF).images
        assert (rows, of_net) == (unet, net)
        alone = pipeline("a lake", guidance_scale=1.0, **given, **STEPS).images
        np.testing.assert_array_equal(pipeline("a lake", **given, **NONE).images, alone)
        assert np.abs(half - alone).max() > 1e-3


def test_image_prompts_with_masks(checkpoint: Checkpoint, tmp_path: Path) -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint("sd1") / "unet")
    image_encoder_folder(tmp_path / "image_encoder")
    adapter = adapter_file(tmp_path / "base.safetensors", unet, "base", 60)
    given = {"ip_adapter_image": drawn(), "ip_adapter_masks": drawn("L"), "num_images_per_prompt": 2}
    with opened(checkpoint("sd1")) as pipeline:
        pipeline.load_ip_adapter(str(adapter))
        with counted_rows() as rows:
            half = pipeline("a lake", **given, **HALF).images
        assert rows == [2, 4, 4, 2]
        alone = pipeline("a lake", guidance_scale=1.0, **given, **STEPS).images
        np.testing.assert_array_equal(pipeline("a lake", **given, **NONE).images, alone)
        assert np.abs(half - alone).max() > 1e-3


@pytest.mark.parametrize("prompt", ["make it a lake", "make it a lake AND a castle :0.5"])
def test_instructions_have_three_rows(checkpoint: Checkpoint, prompt: str) -> None:
    """The prompt's row is left: the image's own guidance is also 1 outside. AND keeps the others."""
    with opened(checkpoint("pix2pix")) as pipeline:
        given = {"prompt": prompt, "image": drawn()}
        with counted_rows() as rows:
            half = pipeline(**given, image_guidance_scale=2.5, **HALF).images
        assert rows == ([4] * 4 if "AND" in prompt else [1, 3, 3, 1])
        alone = pipeline(**given, guidance_scale=1.0, image_guidance_scale=1.0, **STEPS).images
        found = pipeline(**given, image_guidance_scale=2.5, **NONE).images
        np.testing.assert_array_equal(found, alone)
        assert np.abs(half - alone).max() > 1e-3


def test_inpainting_with_more_channels(checkpoint: Checkpoint) -> None:
    with opened(checkpoint("inpaint")) as pipeline:
        given = {"image": drawn(), "mask_image": drawn("L")}
        with counted_rows() as rows:
            pipeline("a lake", **given, **HALF)
        assert rows == [1, 2, 2, 1]
        alone = pipeline("a lake", guidance_scale=1.0, **given, **STEPS).images
        np.testing.assert_array_equal(pipeline("a lake", **given, **NONE).images, alone)


@pytest.mark.parametrize("mode", ["balanced", "control"])
def test_t2i_adapters(checkpoint: Checkpoint, made_once: MadeOnce, mode: str) -> None:
    adapter = made_once("guidance/t2i", lambda folder: write_adapter(folder, "sd1"))
    given = {"control_image": drawn(), "control_mode": mode}
    with opened(checkpoint("sd1"), controlnet=adapter) as pipeline:
        with counted_rows() as rows:
            half = pipeline("a lake", **given, **HALF).images
        assert rows == [1, 2, 2, 1]
        alone = pipeline("a lake", guidance_scale=1.0, **given, **STEPS).images
        np.testing.assert_array_equal(pipeline("a lake", **given, **NONE).images, alone)
        assert np.abs(half - alone).max() > 1e-3


@pytest.mark.parametrize("kind", ["net", "t2i"])
def test_calls_are_made_where_control_ends(
    checkpoint: Checkpoint, controlnet: Path, made_once: MadeOnce, kind: str
) -> None:
    """With `accelerate`, past outputs with a ControlNet do not stand for those without it."""
    adapter = made_once("guidance/t2i", lambda folder: write_adapter(folder, "sd1"))
    call = STEPS | {"num_inference_steps": 20, "accelerate": "balanced", "control_image": drawn()}
    with opened(checkpoint("sd1"), controlnet=controlnet if kind == "net" else adapter) as pipeline:
        whole = calls(pipeline, call)
        ended = calls(pipeline, call | {"control_guidance_end": 0.5})
    assert not {10, 11, 12} <= whole
    assert {10, 11, 12} <= ended


def calls(pipeline: StableDiffusionPipeline, call: dict[str, Any]) -> set[int]:
    """The evaluations that called the U-Net."""
    request = Request(prompt="a lake", **{key: value for key, value in call.items() if key != "scheduler"})
    made, before = set[int](), 0
    with counted_rows() as rows:
        for step in pipeline.stream(request, scheduler=call["scheduler"]):
            if isinstance(step, GenerationStep) and len(rows) > before:
                made.add(step.index)
            before = len(rows)
    return made
