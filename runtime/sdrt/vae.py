"""The VAE: latents to pictures."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import ComponentError, IntegrityError, UnsupportedModelError
from sdrt.image import to_unit
from sdrt.model import ModelFolder
from sdrt.session import Component
from sdrt.wording import brief

__all__ = ["VaeDecoder", "scaling_factor"]

# A picture whose channels all stay within this is one colour once it has 8 bits.
_FLAT = 0.5 / 255
# Stable Diffusion has 0.18. Far from it float32 overflows, or loses the picture.
_LEAST, _MOST = 1e-6, 1e6


def scaling_factor(model: ModelFolder, name: str) -> float:
    """The factor between the VAE's latents and the U-Net's, from the VAE's config."""
    config = model.component_config(name)
    value = config.get("scaling_factor")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _LEAST <= value <= _MOST:
        raise IntegrityError(
            f"{name}/config.json: scaling_factor is {brief(value)}, expected a number from {_LEAST} to {_MOST}"
        )
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if config.get(key):
            raise UnsupportedModelError(f"{name}/config.json: {key} {brief(config[key])} is not supported")
    return float(value)


class VaeDecoder:
    """Latents [C, h, w] to a picture [H, W, 3] in 0..1; one at a time, which bounds the memory."""

    def __init__(self, component: Component, scaling: float) -> None:
        component.require(("latent_sample",), ("sample",))
        self._component, self._scaling = component, scaling

    def __call__(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decode one picture. Raises `ComponentError` when it is not finite or of one colour."""
        batch = (latents / np.float32(self._scaling))[np.newaxis]
        with self._component.bound({"latent_sample": batch.shape}, ("sample",)) as run:
            run.set("latent_sample", batch)
            image = run()["sample"][0]
            self._component.check_finite("sample", image)
            unit = to_unit(image)
        if not np.ptp(unit, axis=(0, 1)).max() > _FLAT:
            self._blame(latents)
        return unit

    def _blame(self, latents: NDArray[np.float32]) -> NoReturn:
        name, what = self._component.name, "the picture is of one colour though its latents are not"
        if not np.ptp(latents, axis=(1, 2)).any():
            name, what = "unet", "the latents are the same everywhere, and so is the picture"
        raise ComponentError(f"{name}: {what}: the graph overflows or is damaged; export it again in fp32")
