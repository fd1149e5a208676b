"""Lists the architectures that can have random weights, with their sizes."""

from __future__ import annotations

from typing import Any

from sdrt_export.architectures.published import PUBLISHED
from sdrt_export.components.outline import num_parameters

__all__ = ["list_architectures"]


def list_architectures() -> list[dict[str, Any]]:
    """A row for each architecture: its name, its title, and the number of parameters of each part."""
    rows = []
    for name, row in PUBLISHED.items():
        parts = num_parameters(row.family, row.configs)
        rows.append(
            {"architecture": name, "title": row.title, "parameters": sum(parts.values()), "parts": parts}
        )
    return rows
