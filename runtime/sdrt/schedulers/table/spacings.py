"""All spacings and their names. To add a spacing, add a row here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["ALL_SPACINGS", "EVEN_SPACINGS", "SPACINGS", "SPACING_LABELS"]


def _of_trained(levels: str) -> Mapping[str, Any]:
    """A rule that sees the whole trained range, whatever the config says, and with it k-diffusion's first noise."""
    return {"levels": levels, "timestep_spacing": "linspace"}


SPACINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "leading": {"timestep_spacing": "leading", "levels": None},
        "trailing": {"timestep_spacing": "trailing", "levels": None},
        "linspace": {"timestep_spacing": "linspace", "levels": None},
        "sgm_uniform": {"timestep_spacing": "sgm_uniform", "levels": None},
        # The spacing of timesteps stays: for Euler it gives the range of levels and the scale of the first noise.
        "karras": {"levels": "karras"},
        "exponential": {"levels": "exponential"},
        "beta": {"levels": "beta"},
        "ays": {"levels": "ays"},
        "polyexponential": _of_trained("polyexponential"),
        "kl_optimal": _of_trained("kl_optimal"),
        "simple": _of_trained("simple"),
        "normal": _of_trained("normal"),
        "ddim_uniform": _of_trained("ddim_uniform"),
        "turbo": _of_trained("turbo"),
        "align_your_steps": _of_trained("align_your_steps"),
        "align_your_steps_32": _of_trained("align_your_steps_32"),
        "align_your_steps_gits": _of_trained("align_your_steps_gits"),
        "beta_timesteps": _of_trained("beta_timesteps"),
        "linear_quadratic": _of_trained("linear_quadratic"),
    }
)

SPACING_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "sgm_uniform": "SGM Uniform",
        "karras": "Karras",
        "exponential": "Exponential",
        "beta": "Beta",
        "polyexponential": "Polyexponential",
        "kl_optimal": "KL Optimal",
        "simple": "Simple",
        "normal": "Normal",
        "ddim_uniform": "DDIM",
        "turbo": "Turbo",
        "align_your_steps": "Align Your Steps",
        "align_your_steps_32": "Align Your Steps 32",
        "align_your_steps_gits": "Align Your Steps GITS",
    }
)
"""A1111's and Forge's names of spacings, their "Schedule type". They may follow a sampler's name.

"Uniform" and "Automatic" are names too. What they mean depends on the sampler (`SamplerRow.spacing_named`).
"""

ALL_SPACINGS = tuple(SPACINGS)
EVEN_SPACINGS = ("leading", "trailing", "linspace")
"""The spacings that place whole timesteps evenly."""
