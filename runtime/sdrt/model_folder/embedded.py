"""The embedded models. They are in the package `sdrt_models`, which an installation may lack."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT_MODEL", "embedded_names", "embedded_path"]

DEFAULT_MODEL = "shapes"
"""The model that runs if the user names none."""


def embedded_names() -> tuple[str, ...]:
    """Return the names of the embedded models; none if `sdrt_models` is not installed."""
    try:
        import sdrt_models
    except ModuleNotFoundError:
        return ()
    return sdrt_models.NAMES


def embedded_path(name: str) -> Path | None:
    """Return the folder of the embedded model `name`, or None if there is no such model."""
    if name not in embedded_names():
        return None
    import sdrt_models

    return sdrt_models.path(name)
