"""The VAE: pictures to latents, and latents to pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.errors import ComponentError, IntegrityError, UnsupportedModelError
from sdrt.images.arrays import signed, to_unit
from sdrt.model_folder.folder import ModelFolder
from sdrt.onnx.session import Component
from sdrt.vae.stages import StagedVae

__all__ = ["LARGEST_WHOLE", "VaeDecoder", "VaeEncoder", "VaeGraphs", "scaling_factor"]

Array = NDArray[np.float32]

# A picture whose channels all stay within this is one colour once it has 8 bits.
_FLAT = 0.5 / 255
# Stable Diffusion has 0.18. Far from it float32 overflows, or loses the picture.
_LEAST, _MOST = 1e-6, 1e6
# Pixels up to which a picture is encoded and decoded whole: Stable Diffusion's VAE takes 4.7 GB for so many.
LARGEST_WHOLE = 1024 * 1024


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


class VaeGraphs:
    """The VAE's encoder or decoder as a graph of the whole picture and as one in stages, each opened at first use.

    Args:
        whole: opens the one.
        staged: opens the other; None where the model was exported without, and large pictures are made whole.
        tiling: whether to take the stages; None takes them for pictures that are large.
    """

    def __init__(
        self,
        whole: Callable[[], Component],
        staged: Callable[[], StagedVae] | None,
        *,
        tiling: bool | None,
    ) -> None:
        self._whole, self._staged, self._tiling = whole, staged, tiling

    def load(self) -> None:
        """Open what most pictures take."""
        if self._tiling and self._staged is not None:
            self._staged()
        else:
            self._whole()

    def __call__(self, name: str, array: Array, output: str, *, pixels: int) -> Array:
        """`output` for the input `name` of one picture [C, h, w], of so many pixels."""
        large = pixels > LARGEST_WHOLE if self._tiling is None else self._tiling
        if large and self._staged is not None:
            return self._staged()(array)
        component, batch = self._whole(), np.ascontiguousarray(array[np.newaxis])
        with component.bound({name: batch.shape}, (output,)) as run:
            run.set(name, batch)
            found = run()[output][0]
            component.check_finite(output, found)
            # The buffer is written over by the next run.
            kept: Array = found.copy()
        return kept


class VaeEncoder:
    """Pictures [H, W, 3] of 8 bits to latents [C, h, w], a sample of the posterior as in diffusers."""

    def __init__(self, graphs: VaeGraphs, scaling: float) -> None:
        self._graphs, self._scaling = graphs, scaling

    def __call__(
        self,
        picture: NDArray[np.uint8],
        noise: Callable[[tuple[int, ...]], Array],
        *,
        blank: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Encode one picture, grey where `blank` [H, W] is; `noise` gives standard normal noise of a shape."""
        mean, log_variance = self._parameters(signed(picture), blank)
        std = np.exp(np.float32(0.5) * log_variance.clip(-30, 20))
        latents: Array = (mean + std * noise(mean.shape)) * np.float32(self._scaling)
        return latents

    def mean(self, picture: NDArray[np.uint8]) -> Array:
        """The posterior's mean, not scaled: what U-Nets of the kind pix2pix see beside the latents."""
        mean, _ = self._parameters(signed(picture), None)
        return mean

    def _parameters(self, picture: Array, blank: NDArray[np.bool_] | None) -> tuple[Array, Array]:
        """The posterior's mean and log variance, each [C, h, w], of a picture [3, H, W]."""
        if blank is not None:
            picture = np.where(blank, np.float32(0), picture)
        pixels = picture.shape[1] * picture.shape[2]
        parameters = self._graphs("sample", picture, "latent_parameters", pixels=pixels)
        mean, log_variance = np.split(parameters, 2)
        return mean, log_variance


class VaeDecoder:
    """Latents [C, h, w] to a picture [H, W, 3] in 0..1; one at a time, which bounds the memory.

    `factor` is how many pixels a latent is wide.
    """

    def __init__(self, graphs: VaeGraphs, scaling: float, *, factor: int) -> None:
        self._graphs, self._scaling, self._factor = graphs, scaling, factor

    def load(self) -> None:
        """Open the graph now."""
        self._graphs.load()

    def __call__(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decode one picture. Raises `ComponentError` when it is not finite or of one colour."""
        pixels = latents.shape[1] * latents.shape[2] * self._factor**2
        scaled = latents / np.float32(self._scaling)
        unit = to_unit(self._graphs("latent_sample", scaled, "sample", pixels=pixels))
        if not np.ptp(unit, axis=(0, 1)).max() > _FLAT:
            self._blame(latents)
        return unit

    def _blame(self, latents: NDArray[np.float32]) -> NoReturn:
        name, what = "vae_decoder", "the picture is of one colour though its latents are not"
        if not np.ptp(latents, axis=(1, 2)).any():
            name, what = "unet", "the latents are the same everywhere, and so is the picture"
        raise ComponentError(f"{name}: {what}: the graph overflows or is damaged; export it again in fp32")
