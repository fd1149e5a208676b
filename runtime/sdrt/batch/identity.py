"""What identifies a model, so that another one makes all images anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdrt.model_folder.model import Model

__all__ = ["model_identity"]


def model_identity(model: Model, options: Mapping[str, Any]) -> str:
    """64 hex digits that are others when the model's files are, or what replaces a part of it.

    Files that a manifest lists count by their hashes, so a model may be moved. All others count by their names, sizes
    and times.

    Args:
        model: the model.
        options: names and values of options with files that belong to the model, such as `vae`.
    """
    facts = {
        "model": _of_folder(model),
        **{name: [_state(Path(one)) for one in _listed(value)] for name, value in options.items() if value},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _of_folder(model: Model) -> Any:
    records = {} if model.manifest is None else model.manifest.files
    if records:
        return {name: record.sha256 for name, record in records.items()}
    return [_state(file) for file in _files(model.path)]


def _files(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from sorted(file for file in place.rglob("*") if file.is_file())
    else:
        yield place


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]


def _state(place: Path) -> list[Any]:
    try:
        state = place.stat()
    except OSError:  # a hub id, or a word
        return [str(place)]
    return [str(place), state.st_size, state.st_mtime_ns]
