"""sdrt_models: the models that are part of the package, and the code that made them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["NAMES", "path"]

NAMES = ("shapes",)
"""The embedded models. ``shapes`` draws coloured shapes at 128×128; see ``shapes/MODEL_CARD.md``."""


def path(name: str) -> Path:
    """The folder of the embedded model ``name``. Raises ``KeyError`` for a name that is not in :data:`NAMES`."""
    if name not in NAMES:
        raise KeyError(name)
    return Path(__file__).parent / name / "model"
