"""Limits of a request, and defaults that apply to some models or together with some settings."""

from __future__ import annotations

__all__ = [
    "DEFAULT_IMAGE_GUIDANCE",
    "DEFAULT_NOISE_LEVEL",
    "DEFAULT_STRENGTH",
    "MAX_IMAGES",
    "MAX_SIZE",
    "MAX_STEPS",
    "MAX_TILED_SIZE",
]

MAX_STEPS = 1000
DEFAULT_STRENGTH = 0.8
DEFAULT_IMAGE_GUIDANCE = 1.5
DEFAULT_NOISE_LEVEL = 20
MAX_SIZE = 2048
"""The longest side in pixels, unless `max_size` allows more. Attention takes time that grows with its fourth power."""
MAX_TILED_SIZE = 8192
"""The longest side in pixels with a `tile_size`, when time grows only with the area."""
MAX_IMAGES = 1024
"""The most images of one request."""
