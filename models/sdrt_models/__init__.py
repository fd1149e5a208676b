"""sdrt_models: the models that come with the package, and how they were made."""

from __future__ import annotations

from pathlib import Path

__all__ = ["NAMES", "path"]

NAMES = ("shapes",)
"""``shapes``: trained by this project on drawn pictures of coloured shapes, 128×128; ``shapes/MODEL_CARD.md``."""


def path(name: str) -> Path:
    """The folder of the embedded model ``name``. Raises ``KeyError`` for a name that is not in :data:`NAMES`."""
    if name not in NAMES:
        raise KeyError(name)
    return Path(__file__).parent / name / "model"
