"""Convert the VAE's latents to the denoiser's, and back."""

from __future__ import annotations

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


@dataclass(frozen=True, kw_only=True)
class LatentScale:
    """Converts the VAE's latents to the denoiser's: (latents - shift) * factor."""

    factor: float
    shift: float = 0.0

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str, spec: VaeSpec, task: Task) -> LatentScale:
        """Read the `config.json` of the component `name`. `spec` and `task` say what replaces or completes it.

        Raises:
            IntegrityError: a value is out of bounds.
            UnsupportedModelError: the config has a shift though the family has none, or values for each channel.
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
        for key in ("shift_factor", "latents_mean", "latents_std"):
            if config.get(key) and not (shifts and key == "shift_factor"):
                raise UnsupportedModelError.advised(
                    f"{name}/config.json: {key} {brief(config[key])} is not supported",
                    "use a model without it",
                    component=name,
                )
        if shift is not None and shifts and not (_is_number(shift) and abs(shift) <= _MOST):
            raise wrong_key(
                f"{name}/config.json", "shift_factor", shift, f"a number up to {_MOST}", component=name
            )
        return cls(factor=float(value), shift=float(shift or 0.0) if shifts else 0.0)

    def scaled(self, latents: Array) -> Array:
        """The denoiser's latents."""
        shifted = latents - np.float32(self.shift) if self.shift else latents
        return np.asarray(shifted * np.float32(self.factor))

    def unscaled(self, latents: Array) -> Array:
        """The VAE's latents."""
        raw = latents / np.float32(self.factor)
        return np.asarray(raw + np.float32(self.shift) if self.shift else raw)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
