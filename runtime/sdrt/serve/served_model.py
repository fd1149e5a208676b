"""A model that the server offers. The server itself imports nothing that runs models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ServedModel"]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that the server offers.

    Attributes:
        name: what requests call it.
        source: a folder, a checkpoint, an embedded model or a hub id.
        options: further arguments of `StableDiffusionPipeline.from_pretrained`.
        embeddings: files of textual inversions.
    """

    name: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    embeddings: tuple[str, ...] = ()
