"""Large images in windows, on the tiny model."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.tasks.windows import Windows

FAST: dict[str, Any] = {"num_inference_steps": 2, "seed": 3, "output_type": "np"}


@pytest.mark.parametrize(
    ("height", "width", "side", "overlap"),
    [(64, 64, 16, 4), (20, 100, 32, 0), (7, 9, 16, 4), (33, 16, 16, 8)],
)
def test_windows_cover_everything_and_share_their_overlap(
    height: int, width: int, side: int, overlap: int
) -> None:
    windows = Windows.of(height, width, side=side, overlap=overlap)
    assert (windows.total > 0).all()
    assert windows.size == (min(side, height), min(side, width))
    for axis, length in enumerate((height, width)):
        spans = sorted({(place[axis + 1].start, place[axis + 1].stop) for place in windows})
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all(before[1] - after[0] >= overlap for before, after in pairwise(spans))


def test_a_window_over_everything_changes_nothing(pipeline: StableDiffusionPipeline) -> None:
    expected = pipeline("a cat", width=96, height=64, **FAST).images
    np.testing.assert_array_equal(
        pipeline("a cat", width=96, height=64, tile_size=96, **FAST).images, expected
    )


def test_what_one_window_alone_covers_is_what_the_model_makes_of_it(
    pipeline: StableDiffusionPipeline,
) -> None:
    """One step, so that windows do not hear of each other: their corners are those of images of their own."""
    noise = np.random.default_rng(0).standard_normal((1, 4, 8, 20), np.float32)
    options: dict[str, Any] = {"num_inference_steps": 1, "output_type": "latent", "seed": 1}
    whole = pipeline("a cat", latents=noise, tile_size=96, tile_overlap=16, **options).images
    left = pipeline("a cat", latents=noise[..., :12].copy(), **options).images
    right = pipeline("a cat", latents=noise[..., 8:].copy(), **options).images
    np.testing.assert_allclose(whole[..., :8], left[..., :8], atol=1e-5)
    np.testing.assert_allclose(whole[..., 12:], right[..., 4:], atol=1e-5)
    between = whole[..., 8:12]
    low, high = np.minimum(left[..., 8:], right[..., :4]), np.maximum(left[..., 8:], right[..., :4])
    assert ((between >= low - 1e-5) & (between <= high + 1e-5)).all()


def test_windows_with_images_masks_and_enlargement(pipeline: StableDiffusionPipeline) -> None:
    image = Image.effect_noise((160, 64), 60).convert("RGB")
    mask = Image.new("L", (160, 64))
    mask.paste(255, (40, 10, 120, 50))
    made = pipeline(
        "a cat", image=image, mask_image=mask, tile_size=64, **FAST | {"output_type": "pil"}
    ).images[0]
    # The new content fades out over four pixels.
    assert made.crop((0, 0, 36, 64)).tobytes() == image.crop((0, 0, 36, 64)).tobytes()
    assert pipeline("a cat", hires_scale=2.5, tile_size=64, **FAST).images.shape == (1, 160, 160, 3)


def test_windows_of_a_batch_of_prompts_put_together(pipeline: StableDiffusionPipeline) -> None:
    options: dict[str, Any] = {"width": 128, "height": 64, "tile_size": 80}
    together = pipeline(["a cat AND a dog", "a cow"], **FAST, **options).images
    alone = pipeline("a cow", **FAST | {"seed": 4}, **options).images
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size": 60}, "tile_size is 60: expected a multiple of 8"),
        ({"tile_size": 0}, "tile_size is 0"),
        ({"tile_size": 64, "tile_overlap": 40}, "tile_overlap is 40: expected at most 32, half of tile_size"),
        ({"tile_size": 64, "tile_overlap": 12}, "tile_overlap is 12: expected a multiple of 8"),
        ({"tile_size": 4096, "width": 4096}, "tile_size is 4096: expected at most 2048"),
        ({"tile_size": 64, "guidance_rescale": 0.5}, "at most one of tile_size and guidance_rescale"),
        ({"tile_overlap": 16}, "tile_overlap has no effect without tile_size"),
        ({"tile_size": 64, "width": 8200}, "width is 8200: expected at most 8192; allow more"),
        ({"width": 2056}, "time grows with its fourth power; use tile_size"),
    ],
    ids=str,
)
def test_what_is_refused(pipeline: StableDiffusionPipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        pipeline.stream(Request(prompt="a cat", **FAST, **options))
