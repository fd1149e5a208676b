"""`sdrt models --architectures`: what can be exported with random weights, and how large it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdrt.cli.models.summary import human_size
from sdrt.cli.tables import columns
from sdrt.common.extras import EXTRAS, install_command
from sdrt.errors import ExportError
from sdrt.model_folder.exporter import load_exporter

__all__ = ["architectures_table", "known_architectures"]

_HEADINGS = ("architecture", "what it is", "parameters", "fp32", "fp16")
_BYTES = {"fp32": 4, "fp16": 2}


def known_architectures() -> list[dict[str, Any]]:
    """Each architecture of the exporter, with the bytes of its weights.

    Raises:
        ExportError: the exporter, or a package that it needs, is not installed.
    """
    try:
        rows = load_exporter().list_architectures()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise ExportError.advised(
            f"listing architectures needs {missing}, which is not installed; run",
            install_command(EXTRAS[missing]),
        ) from error
    sizes = _BYTES.items()
    return [{**row, "bytes": {dtype: row["parameters"] * size for dtype, size in sizes}} for row in rows]


def architectures_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table for people."""
    return columns([_HEADINGS, *map(_cells, rows)])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    millions = f"{row['parameters'] / 1e6:,.1f} M"
    return (
        row["architecture"],
        row["title"],
        millions,
        *(human_size(row["bytes"][dtype]) for dtype in _BYTES),
    )
