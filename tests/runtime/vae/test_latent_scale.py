"""The denoiser's latents are the VAE's, scaled as the config says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from sdrt.errors import IntegrityError, UnsupportedModelError
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from sdrt.vae.latent_scale import LatentScale

MEAN, STD = [-1.5, 0.25, 0.0, 2.5], [3.0, 0.5, 1.25, 2.0]
NORMALISED: Mapping[str, Any] = {"scaling_factor": 0.5, "latents_mean": MEAN, "latents_std": STD}


def scale(config: Mapping[str, Any], family: Any = STABLE_DIFFUSION_XL) -> LatentScale:
    return LatentScale.of(config, "vae_decoder", family.vae, family.tasks[0])


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    latents = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    found = scale(NORMALISED)
    expected = [(channel - mean) * 0.5 / std for channel, mean, std in zip(latents, MEAN, STD, strict=True)]
    np.testing.assert_allclose(found.scaled(latents), expected, rtol=1e-6)
    np.testing.assert_allclose(found.unscaled(found.scaled(latents)), latents, atol=1e-6)
    assert found.scaled(latents).dtype == found.unscaled(latents).dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latents_mean": None}, "latents_mean is None, expected 4 numbers from -1e"),
        ({"latents_std": None}, "latents_std is None, expected 4 numbers"),
        ({"latents_std": [1.0] * 3}, "expected 4 numbers from 1e-06 to 1e"),
        ({"latents_std": [1.0, 0.0, 1.0, 1.0]}, "latents_std is"),
        ({"latents_mean": [float("nan")] * 4}, "latents_mean is"),
        ({"latents_mean": "0.1"}, "latents_mean is '0.1'"),
        ({"latents_mean": [True] * 4}, "latents_mean is"),
        ({"latent_channels": 16}, "expected 16 numbers"),
        ({"scaling_factor": float("nan")}, "scaling_factor is nan"),
    ],
)
def test_values_that_do_not_fit(changes: Mapping[str, Any], words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        scale({**NORMALISED, **changes})


@pytest.mark.parametrize("key", ["latents_mean", "latents_std", "shift_factor"])
def test_stable_diffusion_1_has_none(key: str) -> None:
    """diffusers' pipelines for it ignore these values, so the VAE gets latents that it was not trained for."""
    with pytest.raises(UnsupportedModelError, match=f"vae_decoder/config.json: {key} .* is not supported"):
        scale({key: 0.1 if key == "shift_factor" else MEAN}, STABLE_DIFFUSION)
