"""Folders of the user's cache for what providers compile: engines, which hold the weights and fit one library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdrt.common.cache import cache_root
from sdrt.common.notices import Notices
from sdrt.errors import RequestError

__all__ = ["Weights", "compiled_folder"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of a component: their `dtype`, "float32" or "float16", and a `digest` that no others have; None: not known."""

    dtype: str = "float32"
    digest: str | None = None


def compiled_folder(
    graph: Path, weights: Weights, versions: str, options: Mapping[str, str], notices: Notices
) -> Path | None:
    """A folder for what is compiled of `graph`, made if it is not there; None, and a warning, where it cannot be.

    Providers name what they compile by the graph's names and shapes: other weights, another version of the library
    or another option would find it and use it. Here each of them has a folder of its own.
    """
    if weights.digest is None:
        return None
    key = hashlib.sha256(json.dumps([weights.digest, graph.name, options], sort_keys=True).encode())
    try:
        folder = cache_root() / "compiled" / versions / f"{graph.parent.name}-{key.hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
    except (RequestError, OSError) as error:
        notices.warn(f"{graph.parent.name} is compiled at every start, as nothing can be kept: {error}")
        return None
    return folder
