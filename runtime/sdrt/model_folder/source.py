"""A torch checkpoint that the user named, and what replaces its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sdrt.model_folder.folder import tail

__all__ = ["Parts", "Source"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What replaces parts of a checkpoint, or says what its files do not tell.

    Attributes:
        vae: a file or folder of a VAE.
        text_encoders: files of text encoders. Only for a checkpoint in one file.
        config: a folder with configs in diffusers' layout. Only for a checkpoint in one file.
        prediction_type: what the U-Net predicts, "epsilon" or "v_prediction". Only for a checkpoint in one file.
    """

    vae: Path | None = None
    text_encoders: tuple[Path, ...] = ()
    config: Path | None = None
    prediction_type: str | None = None

    def given(self) -> dict[str, Any]:
        """Those that were given, by name."""
        return {row.name: value for row in fields(self) if (value := getattr(self, row.name))}

    def paths(self) -> Iterator[Path]:
        """The files and folders that were given."""
        yield from (path for path in (self.vae, *self.text_encoders, self.config) if path is not None)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A torch checkpoint: a folder, a file, or a model on the hub.

    Attributes:
        name: the folder, file or hub id that the user gave.
        configs: the file, or a folder with the checkpoint's configs. For a hub model it may lack the weights.
        commit: the commit of a hub model; None for a folder or file.
        parts: what replaces parts of it.
        revision, token, cache_dir: the options that the user gave for the hub.
    """

    name: str
    configs: Path
    commit: str | None = None
    parts: Parts = Parts()
    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None

    @property
    def model_name(self) -> str:
        """The name of the model: of the folder or hub id, or of the file without its suffix, as A1111 has it."""
        name = tail(self.name)
        return Path(name).stem if self.configs.is_file() else name
