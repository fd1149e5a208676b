"""A checkpoint with another VAE, as A1111 and ComfyUI choose one beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.common.messages import naming
from sdrt.families import Family
from sdrt_export.checkpoints.checker import Checker
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.config_errors import naming_config
from sdrt_export.checkpoints.parts import Part
from sdrt_export.checkpoints.separate import open_vae_file
from sdrt_export.tensors.array import Array

__all__ = ["with_vae"]

# Config keys that a VAE's tensors do not show. The model decides them.
_OF_MODEL = ("scaling_factor", "latents_mean", "latents_std", "sample_size")


def with_vae(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The checkpoint with the VAE of a file or folder.

    Raises:
        ModelNotFoundError: there is no such file, or it is no VAE.
        UnsupportedModelError: it is damaged, of another architecture, or its latents are not the model's.
    """
    name = checkpoint.family.vae.checkpoint
    own = checkpoint.config(name)
    with naming("vae"):
        part = open_vae_file(path, given={key: own[key] for key in _OF_MODEL if key in own})
        part.check_latents(checkpoint.config(checkpoint.family.denoiser.component), checkpoint.name)
    return _Replaced(checkpoint=checkpoint, part=name, by=part)


@dataclass(frozen=True, kw_only=True)
class _Replaced:
    """A checkpoint whose part `part` comes from elsewhere. See `Checkpoint`."""

    checkpoint: Checkpoint
    part: str
    by: Part

    @property
    def name(self) -> str:
        return self.checkpoint.name

    def names(self) -> tuple[str, ...]:
        return self.checkpoint.names()

    @property
    def revision(self) -> str | None:
        return self.checkpoint.revision

    @property
    def family(self) -> Family:
        return self.checkpoint.family

    def config(self, part: str) -> dict[str, Any]:
        return dict(self.by.config) if part == self.part else self.checkpoint.config(part)

    def tensors(self, part: str) -> Mapping[str, Array]:
        return self.by.tensors if part == self.part else self.checkpoint.tensors(part)

    def place(self, part: str) -> str:
        return self.by.place if part == self.part else self.checkpoint.place(part)

    def errors_of(self, part: str) -> AbstractContextManager[None]:
        if part == self.part:
            return naming_config(Path(self.by.place), part)
        return self.checkpoint.errors_of(part)

    def scheduler_config(self) -> dict[str, Any]:
        return self.checkpoint.scheduler_config()

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        return self.checkpoint.low_res_scheduler_config()

    def checker(self) -> Checker | None:
        return self.checkpoint.checker()

    def index(self) -> dict[str, Any]:
        return self.checkpoint.index()

    def tokenizer_folders(self) -> dict[str, Path]:
        return self.checkpoint.tokenizer_folders()

    def size(self) -> int:
        return self.checkpoint.size()
