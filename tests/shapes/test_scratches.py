"""Scratches on drawn images disappear from them, without a seam and without a change elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from sdrt import StableDiffusionPipeline
from sdrt_models.shapes.drawing import draw_scene
from sdrt_models.shapes.scenes import Background, Scene, Thing

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16)
BLUR = 4  # the default
PROMPT = "a large blue circle on a white background"

Levels = NDArray[np.float64]


def _drawn() -> Image.Image:
    thing = Thing(colour="blue", shape="circle", size="large", fill="solid")
    scene = Scene(things=(thing,), background=Background(shades=("white",)))
    return draw_scene(scene, np.random.default_rng(4))


def _scratch(width: int) -> NDArray[np.bool_]:
    """A line through the circle, from one part of the background to another."""
    line = Image.new("L", (128, 128))
    ImageDraw.Draw(line).line((9, 103, 119, 27), fill=255, width=width)
    return np.asarray(line) > 0


def _seam(levels: Levels, mask: NDArray[np.bool_]) -> float:
    """The mean difference between neighbours of which one is in the mask, in levels of 255."""
    steps = [
        np.abs(np.diff(levels, axis=axis)).mean(-1)[np.diff(mask.astype(int), axis=axis) != 0]
        for axis in (0, 1)
    ]
    return float(np.concatenate(steps).mean())


@pytest.fixture(scope="module")
def repaired() -> dict[int, Levels]:
    """The image without its scratch, by the scratch's width."""
    masks = {width: _scratch(width) for width in WIDTHS}
    damaged = [np.where(mask[..., np.newaxis], (255, 0, 255), _drawn()) for mask in masks.values()]
    options: dict[str, Any] = {"num_inference_steps": 10, "seed": 1}
    made = StableDiffusionPipeline.from_pretrained("shapes")(
        [PROMPT] * len(WIDTHS),
        image=[image.astype(np.uint8) for image in damaged],
        mask_image=list(masks.values()),
        **options,
    ).images
    return {width: np.asarray(image).astype(float) for width, image in zip(WIDTHS, made, strict=True)}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_scratch_is_gone(repaired: dict[int, Levels], width: int) -> None:
    """No pixel is still magenta, which has a red of 255 and a green of 0."""
    red, green = repaired[width][_scratch(width)][:, 0], repaired[width][_scratch(width)][:, 1]
    assert (red - green).mean() < 10
    assert (red - green).max() < 80


# A wider scratch leaves room for something that was not there.
@pytest.mark.parametrize("width", WIDTHS[:-1])
def test_what_was_under_it_is_back(repaired: dict[int, Levels], width: int) -> None:
    clean, mask = np.asarray(_drawn()).astype(float), _scratch(width)
    # Measured: at most 3 levels of 255, where the scratch differed by 100.
    assert np.abs(repaired[width] - clean).mean(-1)[mask].mean() < 8


@pytest.mark.parametrize("width", WIDTHS)
def test_no_seam_shows(repaired: dict[int, Levels], width: int) -> None:
    clean, mask = np.asarray(_drawn()).astype(float), _scratch(width)
    # The circle's own edge crosses the mask's. Measured: at most 3.4 levels more, where the scratch had 100.
    assert _seam(repaired[width], mask) < _seam(clean, mask) + 5


@pytest.mark.parametrize("width", WIDTHS)
def test_the_rest_stays_bit_for_bit(repaired: dict[int, Levels], width: int) -> None:
    mask = Image.fromarray(_scratch(width).astype(np.uint8))
    reached = np.asarray(mask.filter(ImageFilter.MaxFilter(2 * BLUR + 1))) > 0
    np.testing.assert_array_equal(repaired[width][~reached], np.asarray(_drawn())[~reached])
