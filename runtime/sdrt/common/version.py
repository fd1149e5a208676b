"""The version of sdrt, which the packages below `sdrt` need without its other names."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
