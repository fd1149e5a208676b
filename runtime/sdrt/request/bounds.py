"""The bounds of what a request may ask for, and the defaults that depend on the model or on other settings."""

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
"""Pixels a side; a call may raise it with `max_size`. Attention's time grows with the fourth power."""
MAX_TILED_SIZE = 8192
"""The same with a `tile_size`: time grows with the area."""
MAX_IMAGES = 1024
