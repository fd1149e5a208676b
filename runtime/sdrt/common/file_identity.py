"""Whether a file that is in use is still the same."""

from __future__ import annotations

import os
from pathlib import Path

from sdrt.errors import UnsupportedModelError

__all__ = ["check_same", "identity_of"]


def identity_of(state: os.stat_result) -> tuple[int, ...]:
    """Numbers that change when a file is written or replaced."""
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


def check_same(path: Path, identity: tuple[int, ...]) -> None:
    """Check that a file still has this identity.

    Raises:
        UnsupportedModelError: it was written, replaced or removed, or cannot be read.
    """
    try:
        same = identity_of(path.stat()) == identity
    except (FileNotFoundError, NotADirectoryError):
        raise UnsupportedModelError.advised(
            f"{path} was removed, renamed or moved while it was in use",
            "put it back, or open it where it is now",
            path=path,
        ) from None
    except OSError as error:
        raise UnsupportedModelError.advised(
            f"{path} can no longer be read ({error.strerror or error})",
            "check its permissions, and whether its drive is still connected",
            path=path,
        ) from None
    if not same:
        raise UnsupportedModelError.advised(
            f"{path} changed while it was in use",
            "wait until the program that writes it has finished, then open it again",
            path=path,
        )
