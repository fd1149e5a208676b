"""The scaling factors of published VAEs: 1 / the standard deviation of their latents.

`config.json` has the factor. These are for configs without one, and for checkpoints without a config.
"""

from __future__ import annotations

__all__ = ["SD", "SDXL", "X4_UPSCALER"]

SD = 0.18215
"""Stable Diffusion 1 and 2 (Rombach et al. 2022, arXiv:2112.10752), and the default of diffusers' `AutoencoderKL`."""

SDXL = 0.13025
"""SDXL and its refiner (Podell et al. 2023, arXiv:2307.01952)."""

X4_UPSCALER = 0.08333
"""Stable Diffusion's x4 upscaler. diffusers' pipeline sets it in place of the config's."""
