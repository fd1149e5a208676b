"""Convert the VAE's latents to the denoiser's, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief, wrong_key
from sdrt.errors import UnsupportedModelError
from sdrt.families import Task, VaeSpec

__all__ = ["LatentScale"]

Array = NDArray[np.float32]

# Stable Diffusion has 0.18. Far from that, float32 overflows or loses the image.
_LEAST, _MOST = 1e-6, 1e6
_MEAN, _STD = "latents_mean", "latents_std"


@dataclass(frozen=True, kw_only=True)
class LatentScale:
    """Converts the VAE's latents [C, h, w] to the denoiser's: (latents - shift) * factor.

    With `means` and `deviations`, one of each for every channel, the denoiser's are (latents - mean) * factor /
    deviation, as in diffusers' pipelines for SDXL.
    """

    factor: float
    shift: float = 0.0
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str, spec: VaeSpec, task: Task) -> LatentScale:
        """Read the `config.json` of the component `name`. `spec` and `task` say what replaces or completes it.

        Raises:
            IntegrityError: a value is out of bounds.
            UnsupportedModelError: the config has a shift or values for each channel, though the family has none.
        """
        shifts, shift = spec.shifts, config.get("shift_factor")
        value = config.get("scaling_factor", spec.scaling_factor)
        value = value if task.scaling_factor is None else task.scaling_factor
        if not _is_number(value) or not _LEAST <= value <= _MOST:
            raise wrong_key(
                f"{name}/config.json",
                "scaling_factor",
                value,
                f"a number from {_LEAST} to {_MOST}",
                component=name,
            )
        allowed = {"shift_factor": shifts, _MEAN: spec.normalises, _STD: spec.normalises}
        for key, is_allowed in allowed.items():
            if config.get(key) and not is_allowed:
                raise UnsupportedModelError.advised(
                    f"{name}/config.json: {key} {brief(config[key])} is not supported",
                    "use a model without it",
                    component=name,
                )
        if shift is not None and shifts and not (_is_number(shift) and abs(shift) <= _MOST):
            raise wrong_key(
                f"{name}/config.json", "shift_factor", shift, f"a number up to {_MOST}", component=name
            )
        means, deviations = _of_channels(config, name)
        return cls(
            factor=float(value),
            shift=float(shift or 0.0) if shifts else 0.0,
            means=means,
            deviations=deviations,
        )

    def scaled(self, latents: Array) -> Array:
        """The denoiser's latents."""
        if self.means:
            return np.asarray(
                (latents - _column(self.means)) * np.float32(self.factor) / _column(self.deviations)
            )
        shifted = latents - np.float32(self.shift) if self.shift else latents
        return np.asarray(shifted * np.float32(self.factor))

    def unscaled(self, latents: Array) -> Array:
        """The VAE's latents."""
        if self.means:
            return np.asarray(
                latents * _column(self.deviations) / np.float32(self.factor) + _column(self.means)
            )
        raw = latents / np.float32(self.factor)
        return np.asarray(raw + np.float32(self.shift) if self.shift else raw)


def _of_channels(config: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the deviation of each channel, both empty if the config has none."""
    if not config.get(_MEAN) and not config.get(_STD):
        return (), ()
    count = config.get("latent_channels", 4)
    found = {}
    for key, least in ((_MEAN, -_MOST), (_STD, _LEAST)):
        values = config.get(key)
        listed = values if isinstance(values, (list, tuple)) else ()
        if len(listed) != count or not all(_is_number(one) and least <= one <= _MOST for one in listed):
            fits = f"{count} numbers from {least:g} to {_MOST:g}, together with {_STD if key == _MEAN else _MEAN}"
            raise wrong_key(f"{name}/config.json", key, values, fits, component=name)
        found[key] = tuple(float(one) for one in listed)
    return found[_MEAN], found[_STD]


def _column(values: tuple[float, ...]) -> Array:
    """One value for each channel of latents [C, h, w]."""
    return np.array(values, np.float32)[:, np.newaxis, np.newaxis]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
