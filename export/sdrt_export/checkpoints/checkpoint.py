"""The interface of every kind of checkpoint: a diffusers folder, a single file, an architecture with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from sdrt.families import Family
from sdrt_export.checkpoints.checker import Checker
from sdrt_export.tensors.array import Array

__all__ = ["Checkpoint"]


class Checkpoint(Protocol):
    """A source of configs and tensors. The manifest records `name` and `revision`."""

    @property
    def name(self) -> str:
        """A folder's or file's name, or a hub id."""

    @property
    def revision(self) -> str | None:
        """The hub's commit. None for local files."""

    @property
    def family(self) -> Family:
        """The family of models, which says which components there are."""

    def config(self, part: str) -> dict[str, Any]:
        """The config of the part `part` ("text_encoder", "unet", "vae"), as diffusers' pipeline has it after loading.

        It includes the defaults of diffusers' class for keys that the file leaves out.
        """

    def tensors(self, part: str) -> Mapping[str, Array]:
        """The part's tensors, by the names that diffusers or transformers give them, in any floating type of NumPy."""

    def place(self, part: str) -> str:
        """Where the part's tensors are, for messages: a folder, a file, or a name."""

    def errors_of(self, part: str) -> AbstractContextManager[None]:
        """Within this block, errors about the part name its config, if the user gave that config."""

    def scheduler_config(self) -> dict[str, Any]:
        """The content of `scheduler_config.json`."""

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        """The config of an upscaler's second scheduler. None without one."""

    def index(self) -> dict[str, Any]:
        """The content of `model_index.json`. Empty without one."""

    def names(self) -> tuple[str, ...]:
        """Its names: of the file, and in its metadata. Few-step models can be recognised only by these."""

    def checker(self) -> Checker | None:
        """The safety checker that its index names. None if it names none."""

    def tokenizer_folders(self) -> dict[str, Path]:
        """The folders of the tokenizers' files, by the tokenizers' names. Empty without files."""

    def size(self) -> int:
        """The bytes of the exported weights in float32."""
