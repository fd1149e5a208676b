"""sdrt_models: the models that come with the package, and how they were made."""

from __future__ import annotations

from pathlib import Path

__all__ = ["NAMES", "path"]

NAMES = ("tiny",)
"""``tiny``: Stable Diffusion's architecture at 64×64 with random weights. It shows that an installation works."""


def path(name: str) -> Path:
    """The folder of the embedded model ``name``. Raises ``KeyError`` for a name that is not in :data:`NAMES`."""
    if name not in NAMES:
        raise KeyError(name)
    return Path(__file__).parent / name
