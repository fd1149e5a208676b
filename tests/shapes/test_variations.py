"""How the images that the vision encoder learns from are varied."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="comes with the train extra")

from sdrt_models.shapes.variations import faded, repainted  # noqa: E402 - needs torch


def chroma(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.amax(1) - pixels.amin(1)


def test_fading_makes_colours_paler_and_keeps_grays() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).random((64, 3, 4, 4), dtype=np.float32))
    pixels[:, :, 0] = 0.3
    made = faded(pixels, np.random.default_rng(1))
    torch.testing.assert_close(made[:, :, 0], pixels[:, :, 0])
    before, after = chroma(pixels)[:, 1:], chroma(made)[:, 1:]
    assert (after <= before + 1e-6).all()
    share = (after / before).mean((1, 2))
    assert share.min() < 0.5
    assert 0.2 < (share > 0.999).float().mean() < 0.6


def test_repainting_keeps_grays() -> None:
    gray = torch.full((8, 3, 2, 2), 0.4)
    torch.testing.assert_close(repainted(gray, np.random.default_rng(0)), gray)
