"""The folder for files that sdrt can make again."""

from __future__ import annotations

import os
from pathlib import Path

from sdrt.errors import RequestError

__all__ = ["cache_root"]


def cache_root() -> Path:
    """`$SDRT_CACHE`, or the user's cache folder. Raises `RequestError` if the user has no home folder."""
    import platformdirs

    given = os.environ.get("SDRT_CACHE") or platformdirs.user_cache_dir("sdrt", appauthor=False)
    try:
        root = Path(given).expanduser()
    except RuntimeError:
        raise RequestError.advised(
            f"there is no cache folder: {given} names a home that does not exist",
            "set SDRT_CACHE to a folder that you can write to",
            path=Path(given),
        ) from None
    return root
