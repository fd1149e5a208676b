"""A row of `sdrt models`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdrt.cli.models.summary import summarise
from sdrt.errors import SdrtError

__all__ = ["EXPORTED", "Row", "folder_row"]

EXPORTED = "model folder"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model. `model` is the value for `-m`, and `where` is embedded, exported, hub or here.

    `kind` is "model folder" for what sdrt or another program exported, else the kind of checkpoint. `base` is the model
    that a file derives from, such as "SDXL". Fields that are not known are None. `problem` says why the model cannot be
    used.
    """

    model: str
    where: str
    path: str
    kind: str = EXPORTED
    base: str | None = None
    family: str | None = None
    target: str | None = None
    dtype: str | None = None
    bytes: int | None = None
    source: str | None = None
    problem: str | None = None


def folder_row(name: str, where: str, path: Path) -> Row:
    """The row of a folder that was exported."""
    from sdrt.model_folder.folder import ModelFolder

    try:
        known = summarise(ModelFolder.open(path), verified=False)
    except (SdrtError, OSError, RuntimeError) as error:
        return Row(model=name, where=where, path=str(path), problem=str(error))
    return Row(
        model=name,
        where=where,
        path=str(path),
        source=(known["source"] or {}).get("id"),
        **{key: known[key] for key in ("family", "target", "dtype", "bytes")},
    )
