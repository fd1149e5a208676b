"""Folders of the user's cache for compiled engines, which contain the weights and fit one version of a library."""

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
    """A component's weights.

    Attributes:
        dtype: their type, "float32" or "float16".
        digest: a text that differs for other weights. None if unknown.
        adapted: whether adapters have changed them.
        base: the digest before they did. None if unknown.
    """

    dtype: str = "float32"
    digest: str | None = None
    adapted: bool = False
    base: str | None = None


def compiled_folder(
    graph: Path, weights: Weights, versions: str, options: Mapping[str, str], notices: Notices
) -> Path | None:
    """Make the folder for engines compiled from `graph`. Returns None, and warns, if that fails.

    Providers name engines by the graph's names and shapes alone, so they would reuse an engine of other weights,
    another version of the library or other options. Here each combination has its own folder.
    """
    if weights.digest is None:
        return None
    key = hashlib.sha256(json.dumps([weights.digest, graph.name, options], sort_keys=True).encode())
    try:
        folder = cache_root() / "compiled" / versions / f"{graph.parent.name}-{key.hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
    except (RequestError, OSError) as error:
        notices.warn(
            f"{graph.parent.name} is compiled at every start, because engines cannot be kept: {error}"
        )
        return None
    return folder
