"""The spacings there are, and what they are called. A new one is a row here."""

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
        # The timestep spacing stays: for Euler it sets the range's ends and the scale of the first noise.
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
"""What A1111 appends to a sampler's name for a spacing; it has no words for the others."""

ALL_SPACINGS = tuple(SPACINGS)
EVEN_SPACINGS = ("leading", "trailing", "linspace")
"""Those that place whole timesteps evenly."""
