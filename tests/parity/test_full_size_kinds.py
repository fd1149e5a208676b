"""Full-size U-Nets that see an image beside the latents, or a noise level, against diffusers' pipelines for them."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdrt import StableDiffusionPipeline
from tests.parity.image_prompts import given_image

pytestmark = [
    pytest.mark.full,
    # One worker, and after the other full-size model.
    pytest.mark.xdist_group("full-size"),
    # diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning"),
]

SEED = 3
# Float32 sums in another order, of two steps with guidance: as in test_full_size.
IMAGE = 5e-5


def half_white(width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 3, 0, width, height))
    return mask


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sd15-inpainting": (
        "StableDiffusionInpaintPipeline",
        {"image": given_image(136, 128), "mask_image": half_white(136, 128)},
    ),
    "instruct-pix2pix": (
        "StableDiffusionInstructPix2PixPipeline",
        {"image": given_image(136, 128), "image_guidance_scale": 1.8},
    ),
    "x4-upscaler": ("StableDiffusionUpscalePipeline", {"image": given_image(36, 32), "noise_level": 30}),
}
CALL: dict[str, Any] = {
    "prompt": "a lighthouse on a cliff",
    "negative_prompt": "blurry",
    "num_inference_steps": 2,
    "output_type": "np",
}


def expected(architecture: str, folder: Path) -> np.ndarray:
    """diffusers' images [1, H, W, 3]; its weights are let go."""
    import diffusers
    from transformers import CLIPTokenizerFast

    from sdrt_export.checkpoints.random import RandomCheckpoint
    from sdrt_export.tokenizer import write_byte_tokenizer
    from sdrt_export.verify.modules import load_part

    kind, options = CASES[architecture]
    source = RandomCheckpoint(architecture=architecture, seed=0)
    write_byte_tokenizer(folder / "scratch", folder / "tokenizer", 77)
    parts: dict[str, Any] = {name: load_part(source, name) for name in ("text_encoder", "unet", "vae")}
    parts["tokenizer"] = CLIPTokenizerFast.from_pretrained(folder / "tokenizer")
    parts["scheduler"] = diffusers.DDIMScheduler.from_config(source.scheduler_config())
    if config := source.low_res_scheduler_config():
        parts["low_res_scheduler"] = diffusers.DDPMScheduler.from_config(config)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, kind)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    size = {"width": 136, "height": 128} if "mask_image" in options else {}
    made: np.ndarray = pipeline(
        generator=torch.Generator().manual_seed(SEED), **options, **size, **CALL
    ).images
    return made


@pytest.mark.parametrize("architecture", CASES)
def test_image_equals_diffusers(architecture: str, tmp_path: Path) -> None:
    from sdrt_export import export_model

    wanted = expected(architecture, tmp_path)
    gc.collect()
    folder = tmp_path / "model"
    export_model(None, folder, architecture=architecture, random_weights=0, target="cpu", verify=True)
    try:
        with StableDiffusionPipeline.from_pretrained(
            folder, provider="cpu", notify=lambda _: None
        ) as pipeline:
            options = CASES[architecture][1]
            # diffusers keeps all of what was made.
            kept = {"composite": False} if "mask_image" in options else {}
            got = pipeline(seed=SEED, scheduler="ddim", **options, **kept, **CALL).images
    finally:
        shutil.rmtree(folder)  # 4 GB
    assert got.shape == wanted.shape
    assert np.ptp(wanted) > 0.5
    assert np.abs(got - wanted).max() <= IMAGE
