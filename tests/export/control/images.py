"""What the tests of ControlNets share: a control image, and images made with ControlNets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sdrt import StableDiffusionPipeline

__all__ = ["control_image", "made"]


def control_image() -> Image.Image:
    """A white ellipse on black, 64x48."""
    drawn = Image.new("RGB", (64, 48))
    ImageDraw.Draw(drawn).ellipse((10, 8, 50, 38), outline="white", width=3)
    return drawn


def made(source: Path | str, controlnets: list[Path], **options: Any) -> np.ndarray:
    """Images in 0 to 1 by a pipeline of its own."""
    with StableDiffusionPipeline.from_pretrained(
        source, controlnet=controlnets, provider="cpu", notify=lambda _: None
    ) as pipeline:
        call: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np", **options}
        return np.asarray(pipeline("a red circle", **call).images)
