"""All spacings and their names. To add a spacing, add a row here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["ALL_SPACINGS", "EVEN_SPACINGS", "SPACINGS", "SPACING_LABELS"]

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
    }
)

SPACING_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "sgm_uniform": "SGM Uniform",
        "karras": "Karras",
        "exponential": "Exponential",
        "beta": "Beta",
        "ays": "Align Your Steps",
    }
)
"""The word that A1111 appends to a sampler's name for a spacing. A1111 has no words for the others."""

ALL_SPACINGS = tuple(SPACINGS)
EVEN_SPACINGS = ("leading", "trailing", "linspace")
"""The spacings that place whole timesteps evenly."""
