"""Our folders in optimum's pipeline: the same names, so the same image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdrt import StableDiffusionPipeline

OPTIONS: dict[str, Any] = {
    "prompt": "a photo of an astronaut riding a horse on mars",
    "negative_prompt": "blurry",
    "height": 64,
    "width": 80,
    "num_inference_steps": 4,
    "output_type": "np",
}


def optimums_image(folder: Path, seed: int) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings():
        # optimum and diffusers warn about each other's interfaces; the image is what counts.
        warnings.simplefilter("ignore")
        from optimum.onnxruntime import ORTStableDiffusionPipeline

        pipeline = ORTStableDiffusionPipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        images: np.ndarray[Any, Any] = pipeline(
            generator=torch.Generator("cpu").manual_seed(seed), **OPTIONS
        ).images
    return images


def our_image(folder: Path, seed: int) -> np.ndarray[Any, Any]:
    with StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1) as pipeline:
        images: np.ndarray[Any, Any] = pipeline(seed=seed, **OPTIONS).images
    return images


@pytest.mark.filterwarnings("ignore::sdrt.SdrtWarning")
def test_optimum_makes_our_image_from_our_folder(sd1_export: Any) -> None:
    ours, theirs = our_image(sd1_export.folder, 11), optimums_image(sd1_export.folder, 11)
    assert ours.shape == theirs.shape == (1, 64, 80, 3)
    assert np.ptp(ours) > 0.5
    assert np.abs(ours - theirs).max() <= 1 / 255


@pytest.mark.filterwarnings("ignore::sdrt.SdrtWarning")
def test_both_exporters_make_one_image(sd1_export: Any, optimum_export: Path) -> None:
    ours, theirs = our_image(sd1_export.folder, 12), our_image(optimum_export, 12)
    assert np.abs(ours - theirs).max() <= 1 / 255
