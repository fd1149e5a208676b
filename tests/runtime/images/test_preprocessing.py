"""What makes control images of images."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sdrt.errors import RequestError
from sdrt.images.preprocessing import preprocessed


def square() -> np.ndarray:
    image = np.zeros((40, 50, 3), np.uint8)
    image[10:30, 15:35] = (200, 30, 90)
    return image


def test_none_takes_the_image_as_it_is() -> None:
    assert preprocessed(image := square(), "none") is image


def test_canny_finds_the_outline() -> None:
    pytest.importorskip("cv2", reason="OpenCV comes with the extra control")
    found = preprocessed(square(), "canny", low=100, high=200)
    assert found.shape == (40, 50, 3)
    assert set(np.unique(found)) == {0, 255}
    rows, columns = np.nonzero(found[..., 0])
    assert (rows.min(), columns.min()) in {(9, 14), (10, 15)}
    assert not found[14:26, 19:31].any()
    # Nothing changes by more than this.
    assert not preprocessed(square(), "canny", low=5000, high=9000).any()


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        RequestError, match=r"needs OpenCV, which is not installed; run.*pip install .*control"
    ):
        preprocessed(square(), "canny", low=100, high=200)
