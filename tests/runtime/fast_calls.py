"""Calls of few steps, and their images."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdrt import StableDiffusionPipeline

FAST: dict[str, Any] = {"num_inference_steps": 2, "seed": 5, "output_type": "np"}


def images(pipeline: StableDiffusionPipeline, **options: Any) -> np.ndarray:
    prompt = {} if "prompt_embeds" in options else {"prompt": "a cat"}
    images = pipeline(**(prompt | FAST | options)).images
    assert isinstance(images, np.ndarray)
    return images
