"""What a width and a height do to an image and its mask, on the tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import StableDiffusionPipeline
from sdrt.tasks.inpainting import Canvas, fitted

FAST: dict[str, Any] = {"num_inference_steps": 2, "seed": 2, "prompt": "a cat"}


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def telling(pipeline: StableDiffusionPipeline, told: list[str]) -> StableDiffusionPipeline:
    """A pipeline whose notices are in `told`."""
    return StableDiffusionPipeline.from_pretrained(
        pipeline.model.path, provider="cpu", verify=False, notify=told.append
    )


def given_image(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def mask(box: tuple[int, int, int, int], width: int, height: int) -> Image.Image:
    drawn = Image.new("L", (width, height))
    drawn.paste(255, box)
    return drawn


@pytest.mark.parametrize("painted", [False, True])
@pytest.mark.parametrize(
    ("size", "asked", "advice"),
    [
        ((96, 64), (64, 64), "stretched to 64x64: to keep its proportions, give width 64 and height 40"),
        ((64, 64), (128, 64), "stretched to 128x64: to keep its proportions, give width 128 and height 128"),
        ((96, 64), (48, 32), None),
        ((64, 64), (128, 128), None),
        ((70, 51), (96, 72), None),
    ],
)
def test_the_result_has_the_size_that_was_asked_for(
    telling: StableDiffusionPipeline,
    told: list[str],
    size: tuple[int, int],
    asked: tuple[int, int],
    advice: str | None,
    painted: bool,
) -> None:
    given, (width, height) = given_image(*size), asked
    options = {"mask_image": mask((0, 0, size[0] // 4, size[1]), *size)} if painted else {}
    output = telling(image=given, width=width, height=height, **options, **FAST)
    made = output.images[0]
    assert made.size == asked
    assert output.metadata(0).settings["Size"] == f"{width}x{height}"
    assert [text.partition(" and is ")[2] for text in told] == ([advice] if advice else [])
    if painted:
        scaled = given.resize(asked, Image.Resampling.LANCZOS)
        far = (width // 2, 0, width, height)
        assert made.crop(far).tobytes() == scaled.crop(far).tobytes()


def test_a_size_that_is_rounded_is_no_stretching(telling: StableDiffusionPipeline, told: list[str]) -> None:
    given = given_image(70, 51)
    assert telling(image=given, **FAST).images[0].size == (64, 48)
    made = telling(image=given, mask_image=mask((0, 0, 9, 9), 70, 51), **FAST).images[0]
    assert made.size == (70, 51)
    assert not told


def test_what_is_cropped_keeps_its_proportions() -> None:
    """Where the image has no room for a box in the proportions of the U-Net's size, its edge is repeated."""
    image = np.asarray(given_image(96, 32))
    white = np.full((32, 96), 255, np.uint8)
    box = (0, 0, 96, 32)
    assert fitted(box, 64, 64) == (21, 64)
    canvas = Canvas(image=image, mask=white, box=box, height=64, width=64, scaled=(21, 64), blur=0)
    assert canvas.seen.shape == (64, 64, 3)
    assert (canvas.seen[:21] == canvas.seen[21]).all()
    assert (canvas.seen[43:] == canvas.seen[41]).all()
    assert canvas.seen_mask.sum() == 21 * 64
    made = canvas.composite(canvas.seen.astype(np.float32) / 255)
    there_and_back = np.asarray(
        Image.fromarray(canvas.seen[21:42]).resize((96, 32), Image.Resampling.LANCZOS)
    )
    np.testing.assert_array_equal((made * 255).round(), there_and_back)


def test_a_wide_mask_of_a_wide_image_is_painted_as_it_is(
    telling: StableDiffusionPipeline, told: list[str]
) -> None:
    given, white = given_image(160, 48), mask((0, 20, 160, 24), 160, 48)
    options: dict[str, Any] = {"padding_mask_crop": 0, "width": 64, "height": 64, "mask_blur": 2}
    made = telling(image=given, mask_image=white, **options, **FAST).images[0]
    changed = (np.asarray(made) != np.asarray(given)).any(-1)
    assert made.size == given.size
    assert changed[20:24].mean() > 0.9
    assert not changed[:18].any()
    assert not changed[26:].any()
    assert not told
