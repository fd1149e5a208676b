"""What makes control images of images."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from sdrt.images.canny import canny
from sdrt.images.preprocessing import preprocessed


def square() -> np.ndarray:
    image = np.zeros((40, 50, 3), np.uint8)
    image[10:30, 15:35] = (200, 30, 90)
    return image


def noise(kind: str, seed: int, height: int, width: int) -> np.ndarray:
    """Colours, a few levels, or a smooth grey image, in which edges are long."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if kind == "levels":
        return pixels // 128 * 100
    if kind == "smooth":
        grey = Image.fromarray(pixels[..., 0]).resize((5 * width, 5 * height), Image.Resampling.BILINEAR)
        return np.repeat(np.asarray(grey)[..., np.newaxis], 3, axis=2)
    return pixels


def test_none_takes_the_image_as_it_is() -> None:
    assert preprocessed(image := square(), "none") is image


def test_canny_finds_the_outline() -> None:
    found = preprocessed(square(), "canny", low=100, high=200)
    assert found.shape == (40, 50, 3)
    assert set(np.unique(found)) == {0, 255}
    rows, columns = np.nonzero(found[..., 0])
    assert (rows.min(), columns.min()) in {(9, 14), (10, 15)}
    assert not found[14:26, 19:31].any()
    # Nothing changes by more than this.
    assert not preprocessed(square(), "canny", low=5000, high=9000).any()


# What OpenCV 5.0.0 finds: how many pixels, and a hash of them.
OPENCV = {
    ("colours", 100, 200): (1055, "58fd9a81fcd7b98e"),
    ("colours", 400.7, 700.2): (1022, "bf94ef71944daebf"),
    ("levels", 150, 300): (656, "892bc7f4d7bd71f5"),
    ("smooth", 20, 60): (17462, "24243a6eb20ab4c1"),
    ("smooth", 60, 20): (17462, "24243a6eb20ab4c1"),
}


@pytest.mark.parametrize(("kind", "low", "high"), OPENCV)
def test_canny_is_that_of_opencv(kind: str, low: float, high: float) -> None:
    count, digest = OPENCV[kind, low, high]
    found = canny(noise(kind, 0, 61, 47), low, high)
    assert np.count_nonzero(found) == count
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("kind", ["colours", "levels", "smooth"])
def test_canny_is_that_of_opencv_at_any_size(kind: str) -> None:
    cv2 = pytest.importorskip("cv2")
    source = np.random.default_rng(1)
    for seed in range(30):
        height, width = (int(side) for side in source.integers(1, 60, 2))
        image = noise(kind, seed, height, width)
        low, high = source.uniform(0, 600, 2)
        np.testing.assert_array_equal(canny(image, low, high), cv2.Canny(image, low, high))
