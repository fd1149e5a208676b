"""The bounds of what a request may ask for, and the defaults that depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.common.rng import MAX_SEED
from sdrt.request.checks import MAX_PROMPT_LENGTH
from sdrt.text.syntaxes import SYNTAXES

__all__ = [
    "DEFAULT_IMAGE_GUIDANCE",
    "DEFAULT_NOISE_LEVEL",
    "DEFAULT_STRENGTH",
    "HIRES_UPSCALERS",
    "MAX_PICTURES",
    "MAX_PROMPT_LENGTH",
    "MAX_SEED",
    "MAX_SIZE",
    "MAX_STEPS",
    "MAX_TILED_SIZE",
    "OUTPUT_TYPES",
    "PROMPT_SYNTAXES",
    "WITHOUT_HIRES",
]

MAX_STEPS = 1000
DEFAULT_STRENGTH = 0.8
DEFAULT_IMAGE_GUIDANCE = 1.5
DEFAULT_NOISE_LEVEL = 20
MAX_SIZE = 2048
"""Pixels a side; a call may raise it with `max_size`. Attention's time grows with the fourth power."""
MAX_TILED_SIZE = 8192
"""The same with a `tile_size`: time grows with the area."""
MAX_PICTURES = 1024
OUTPUT_TYPES = ("pil", "np", "latent")
HIRES_UPSCALERS = ("latent", "lanczos")
PROMPT_SYNTAXES = tuple(SYNTAXES)

WITHOUT_HIRES: Mapping[str, Any] = {
    "hires_scale": None,
    "hires_steps": None,
    "hires_strength": 0.7,
    "hires_upscaler": "latent",
}
"""What a request for one of the two pictures of `hires_scale` says of it."""
