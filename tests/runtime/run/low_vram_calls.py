"""A pipeline of the tiny model, and its call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrt import StableDiffusionPipeline

CALL: dict[str, Any] = {"num_inference_steps": 3, "width": 64, "height": 72, "seed": 1, "output_type": "np"}


def pipeline(folder: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, notify=lambda message: None, **options)
