"""Where sdrt keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """`$SDRT_CACHE`, or the user's cache folder."""
    if given := os.environ.get("SDRT_CACHE"):
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("sdrt", appauthor=False))
