"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sdrt.common.cancelling import stop_if_cancelled

__all__ = ["sha256"]

_BLOCK = 1 << 20


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hex. It is read in blocks, between which a run can be cancelled."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            stop_if_cancelled()
            digest.update(block)
    return digest.hexdigest()
