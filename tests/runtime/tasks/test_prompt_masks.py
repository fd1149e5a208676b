"""Masks of image prompts at the size of a level, beside torch and diffusers."""

from __future__ import annotations

import numpy as np
import pytest

from sdrt.tasks.prompt_masks import level_mask


def mask(height: int, width: int) -> np.ndarray:
    """A slanted edge, and gray that becomes black or white."""
    rows, columns = np.indices((height, width))
    return np.clip(columns * 3 - rows * 2 + 40, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (72, 104), (512, 512), (64, 40)])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_mask_is_scaled_as_in_diffusers(size: tuple[int, int], level: int) -> None:
    torch = pytest.importorskip("torch")
    processor = pytest.importorskip("diffusers.image_processor").IPAdapterMaskProcessor
    from PIL import Image

    height, width = size
    given = mask(height, width)
    theirs = processor().preprocess(Image.fromarray(given), height=height, width=width)
    h, w = (-(-side // (8 << level)) for side in size)
    expected = torch.nn.functional.interpolate(theirs, size=(h, w), mode="bicubic")
    ours = level_mask(given, h, w)
    assert ours.shape == (1, h * w, 1)
    # Sums in another order, in float32 there.
    np.testing.assert_allclose(ours.reshape(h, w), expected[0, 0].numpy(), rtol=0, atol=2e-6)
    # Where diffusers guesses the level's height and width.
    if level == 0 or height == 512:
        found = processor.downsample(theirs[:, 0], 1, h * w, 1)
        np.testing.assert_allclose(ours, found.numpy(), rtol=0, atol=2e-6)


def test_rows_stay_rows_where_diffusers_guesses_others() -> None:
    """A mask of the left half of 1024x520 pixels at the lowest level, 16x9."""
    given = np.zeros((520, 1024), np.uint8)
    given[:, :512] = 255
    found = level_mask(given, 9, 16).reshape(9, 16) > 0.5
    assert (found == (np.arange(16) < 8)).all()
