"""A torch checkpoint that the user named, and what replaces its parts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sdrt.model_folder.folder import exists, expand, tail

__all__ = ["Beside", "Source"]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What the user gives beside a checkpoint: what replaces its parts, and what its files do not say.

    Attributes:
        vae: a file, folder or hub id of a VAE.
        text_encoders: files of text encoders. For single-file checkpoints only, like those below.
        config: a folder or hub id of a model in diffusers' layout, for its configs.
        prediction_type: what the U-Net predicts, "epsilon" or "v_prediction".
    """

    vae: str | Path | None = None
    text_encoders: tuple[str | Path, ...] = ()
    config: str | Path | None = None
    prediction_type: str | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not missing, by name."""
        return {row.name: value for row in fields(self) if (value := getattr(self, row.name))}

    def paths(self) -> list[Path]:
        """The files and folders among them."""
        given = [one for one in (self.vae, *self.text_encoders, self.config) if one is not None]
        return [path for one in given if exists(path := expand(one))]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A torch checkpoint: a folder, a file, or a model on the hub.

    Attributes:
        name: the folder, file or hub id that the user gave.
        configs: the file, or a folder with the checkpoint's configs. For a hub model it may lack the weights.
        commit: the commit of a hub model; None for a folder or file.
        beside: what was given beside it.
        revision, token, cache_dir: the options that the user gave for the hub.
    """

    name: str
    configs: Path
    commit: str | None = None
    beside: Beside = Beside()
    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None

    @property
    def model_name(self) -> str:
        """The name of the model: of the folder or hub id, or of the file without its suffix, as A1111 has it."""
        name = tail(self.name)
        return Path(name).stem if self.configs.is_file() else name
