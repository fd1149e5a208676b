"""The models that are embedded in the package `sdrt_models`, which an installation may lack."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT_MODEL", "embedded_names", "embedded_path"]

DEFAULT_MODEL = "shapes"
"""What runs when no model is named."""


def embedded_names() -> tuple[str, ...]:
    """What `-m` takes without any folder or download."""
    try:
        import sdrt_models
    except ModuleNotFoundError:
        return ()
    return sdrt_models.NAMES


def embedded_path(name: str) -> Path | None:
    """The folder of the model `name`; None for other names."""
    if name not in embedded_names():
        return None
    import sdrt_models

    return sdrt_models.path(name)
