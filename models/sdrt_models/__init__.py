"""sdrt_models: the models that are part of the package, and the code that made them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ADAPTERS", "NAMES", "adapter", "path"]

NAMES = ("shapes",)
"""The embedded models. ``shapes`` draws coloured shapes at 128×128; see ``shapes/MODEL_CARD.md``."""

ADAPTERS = {"moon": "moon.safetensors", "edges": "edges", "likeness": "likeness.safetensors"}
"""The adapters of ``shapes``, and their files.

``moon`` is a LoRA, which draws a ninth shape. ``edges`` is a ControlNet, which follows edges.
``likeness`` is an IP-Adapter, which draws what an image shows. Its vision encoder is beside it.
"""


def path(name: str) -> Path:
    """The folder of the embedded model ``name``. Raises ``KeyError`` for a name that is not in :data:`NAMES`."""
    if name not in NAMES:
        raise KeyError(name)
    return Path(__file__).parent / name / "model"


def adapter(name: str) -> Path:
    """The file or folder of an adapter of ``shapes``. Raises ``KeyError`` for others than :data:`ADAPTERS`."""
    return Path(__file__).parent / "shapes" / "adapters" / ADAPTERS[name]
