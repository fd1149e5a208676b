"""Image to image against diffusers' pipeline, on the same tiny weights and seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from tests.parity.image_prompts import HALF_LEVEL, SCHEDULERS, given_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")


def oracle(text_to_image: Any, **options: Any) -> np.ndarray:
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(
        **text_to_image.components, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    made: np.ndarray = pipeline(output_type="np", **options).images
    return made


def worst(folder: Path, theirs: Any, *, seeds: list[int], ours: dict[str, Any], **options: Any) -> float:
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=lambda _: None
    )
    found = pipeline(seed=seeds[0], output_type="np", **ours, **options).images
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    expected = oracle(theirs, generator=generators if len(seeds) > 1 else generators[0], **options)
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("strength", [0.3, 0.55, 1.0])
def test_schedulers_and_strengths(
    sdrt_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], name: str, strength: float
) -> None:
    theirs, (kind, extra) = diffusers_pipeline("sd1"), SCHEDULERS[name]
    before = theirs.scheduler
    try:
        theirs.scheduler = getattr(diffusers, kind).from_config(before.config, **extra)
        config = json.loads(theirs.scheduler.to_json_string())
        options = {
            "prompt": "a lake",
            "image": given_image(),
            "strength": strength,
            "num_inference_steps": 11,
        }
        assert (
            worst(sdrt_folder("sd1"), theirs, seeds=[3], ours={"scheduler": config}, **options) <= HALF_LEVEL
        )
    finally:
        theirs.scheduler = before


def test_sizes_that_are_no_multiples_batches_and_v_prediction(
    sdrt_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any]
) -> None:
    options = {
        "prompt": "a lake",
        "negative_prompt": "fog",
        "image": given_image(83, 61),
        "num_inference_steps": 6,
        "num_images_per_prompt": 2,
    }
    assert (
        worst(sdrt_folder("sd2"), diffusers_pipeline("sd2"), seeds=[5, 6], ours={}, **options) <= HALF_LEVEL
    )
