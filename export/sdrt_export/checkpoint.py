"""Checkpoints: a folder in diffusers' layout.

The classes of components come from :mod:`sdrt_export.components`. The names in ``model_index.json`` are
only compared with it. Weights are read from safetensors, memory-mapped. Nothing in a checkpoint is executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import ConfigMixin
from torch import nn

from sdrt.errors import ExportError, IntegrityError, ModelNotFoundError
from sdrt.families import Family, Task
from sdrt.families.capabilities import default_size, sample_size
from sdrt.model_folder.file_kind import refusal_of_file
from sdrt.model_folder.index import INDEX_NAME, check_checkpoint_index
from sdrt.model_folder.manifest import read_json, readable
from sdrt.vae.latent_scale import LatentScale
from sdrt_export.components import Component, components_of
from sdrt_export.weight_files import find_weights, num_elements

__all__ = ["Checkpoint", "FolderCheckpoint", "for_inference", "open_folder", "parts_of"]

# What the libraries raise about configs and weights that they cannot make a module of.
_UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError)
# The defaults of diffusers' classes.
_CHANNELS = {"in_channels": 4, "out_channels": 4}


class Checkpoint(Protocol):
    """A source of components. The manifest records ``name`` and ``revision``."""

    @property
    def name(self) -> str:
        """A folder's name or a hub id."""

    @property
    def revision(self) -> str | None:
        """The hub's commit, None for a folder."""

    @property
    def family(self) -> Family:
        """The family of models, which says which components there are."""

    def load(self, part: str) -> nn.Module:
        """The torch module of the folder ``part`` ("text_encoder", "unet", "vae"), in float32 for inference."""

    def scheduler_config(self) -> dict[str, Any]:
        """The content of ``scheduler_config.json``."""

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        """The same for an upscaler's second scheduler. None without one."""

    def index(self) -> dict[str, Any]:
        """The content of ``model_index.json``. Empty without one."""

    def tokenizer_folders(self) -> dict[str, Path]:
        """The folders of the tokenizers' files, by the tokenizers' names. Empty without files."""

    def size(self) -> int:
        """The bytes of the exported weights in float32."""


# --- a diffusers folder -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FolderCheckpoint:
    """A folder in diffusers' layout, checked by :func:`open_folder`."""

    folder: Path
    name: str
    family: Family
    revision: str | None = None

    def load(self, part: str) -> nn.Module:
        """See :class:`Checkpoint`."""
        model_class = parts_of(self.family)[part].model_class
        is_diffusers = issubclass(model_class, ConfigMixin)
        dtype = {"torch_dtype": torch.float32} if is_diffusers else {"dtype": torch.float32}
        try:
            module, info = model_class.from_pretrained(  # type: ignore[attr-defined]
                self.folder / part,
                variant=find_weights(self.folder / part).variant,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=True,
                output_loading_info=True,
                **dtype,
            )
        except _UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise ExportError(
                f"{self.folder / part} cannot be loaded as {model_class.__name__}: {reason}",
                component=part,
                path=self.folder / part,
            ) from error
        assert isinstance(module, nn.Module)
        _check_complete(self.folder / part, sorted(info["missing_keys"]))
        self._correct_config(module, part)
        # transformers leaves float8 as it is.
        module = module.float()
        _check_finite(self.folder / part, module)
        return for_inference(module)

    def _correct_config(self, module: Any, part: str) -> None:
        """Change the keys that diffusers' pipeline changes after it has loaded a component."""
        task = _task(self.folder, self.family)
        if part == self.family.denoiser.component:
            config = _read_config(self.folder / part / "config.json")
            module.register_to_config(sample_size=sample_size(config, task))
        if part == self.family.vae.checkpoint and task.scaling_factor is not None:
            module.register_to_config(scaling_factor=task.scaling_factor)

    def scheduler_config(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return _read_config(self.folder / "scheduler" / "scheduler_config.json")

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        """See :class:`Checkpoint`."""
        path = self.folder / "low_res_scheduler" / "scheduler_config.json"
        return _read_config(path) if path.parent.is_dir() else None

    def index(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return read_json(self.folder / INDEX_NAME)

    def tokenizer_folders(self) -> dict[str, Path]:
        """See :class:`Checkpoint`."""
        return {name: self.folder / name for name in self.family.tokenizers}

    def files(self) -> list[Path]:
        """The files that are read: weights, configs, tokenizer."""
        parts = [self.folder / part for part in self.family.checkpoint_components]
        found = [path for part in parts for path in find_weights(part).files]
        found += [path for part in parts for path in part.glob("*.safetensors.index*.json")]
        found += [part / "config.json" for part in parts]
        tokenizers = self.tokenizer_folders().values()
        found += [
            path for folder in tokenizers for path in folder.iterdir() if path.suffix in (".json", ".txt")
        ]
        return [*found, self.folder / "scheduler" / "scheduler_config.json"]

    def size(self) -> int:
        """See :class:`Checkpoint`. Reads the headers of the safetensors files."""
        return 4 * sum(
            num_elements(file)
            for part in self.family.checkpoint_components
            for file in find_weights(self.folder / part).files
        )


def _check_complete(folder: Path, missing: list[str]) -> None:
    """Raise IntegrityError for missing weights, which both libraries leave random with no more than a log message."""
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise IntegrityError.advised(
            f"{folder}: the weights lack {missing[0]}{more}", "download the checkpoint again", path=folder
        )


def _check_finite(folder: Path, module: nn.Module) -> None:
    """Raise IntegrityError for weights with NaN or infinity, whose images would be black."""
    for name, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise IntegrityError.advised(
                f"{folder}: the weight {name} contains NaN or infinity",
                "download the checkpoint again, or use one in another precision",
                path=folder,
            )


def open_folder(folder: Path, name: str | None = None, revision: str | None = None) -> FolderCheckpoint:
    """Check that ``folder`` is a Stable Diffusion checkpoint of known classes in safetensors.

    Raises:
        ModelNotFoundError: the folder does not exist, or is not in diffusers' layout.
        UnsupportedModelError: a class is not in the table, or weights are pickles.
    """
    if not folder.exists():
        raise ModelNotFoundError.expected(
            f"there is no checkpoint folder {folder}",
            "a folder in diffusers' layout or a hub id",
            argument="source",
            path=folder,
        )
    if folder.is_file():
        raise refusal_of_file(folder)
    with readable(folder):
        return _open_folder(folder, name, revision)


def _open_folder(folder: Path, name: str | None, revision: str | None) -> FolderCheckpoint:
    if not (folder / "model_index.json").is_file():
        raise ModelNotFoundError.expected(
            f"{folder} has no model_index.json",
            "a checkpoint in diffusers' layout",
            argument="source",
            path=folder,
        )
    family = check_checkpoint_index(folder)
    for part in family.checkpoint_components:
        _read_config(folder / part / "config.json")
        find_weights(folder / part)
    _read_config(folder / "scheduler" / "scheduler_config.json")
    _check_task(folder, family)
    for tokenizer in family.tokenizers:
        _check_tokenizer(folder / tokenizer)
    return FolderCheckpoint(
        folder=folder, name=name or folder.resolve().name, family=family, revision=revision
    )


def _check_task(folder: Path, family: Family) -> None:
    """Check what would otherwise fail after the components are written, or when the model is used."""
    task, part = _task(folder, family), family.vae.checkpoint
    if task.has_noise_level:
        _read_config(folder / "low_res_scheduler" / "scheduler_config.json")
    default_size(family, _read_config(folder / family.denoiser.component / "config.json"), task, factor=1)
    LatentScale.of(_read_config(folder / part / "config.json"), part, family.vae, task)


def _task(folder: Path, family: Family) -> Task:
    """The task of a checkpoint. Its configs may leave out what are its classes' defaults."""
    parts = (family.denoiser.component, family.vae.checkpoint)
    denoiser, vae = (_read_config(folder / part / "config.json") for part in parts)
    return family.task_of(_CHANNELS | denoiser, vae.get("latent_channels", _CHANNELS["out_channels"]))


def parts_of(family: Family) -> dict[str, Component]:
    """A component for each folder of a checkpoint. The VAE's encoder and decoder share one."""
    return {row.checkpoint: row for row in components_of(family).values()}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is missing: the download may be incomplete", path=path)
    return read_json(path)


def _check_tokenizer(folder: Path) -> None:
    files = ("vocab.json", "merges.txt")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing and not (folder / "tokenizer.json").is_file():
        raise ModelNotFoundError(
            f"{folder / missing[0]} is missing: the download may be incomplete", path=folder / missing[0]
        )


def for_inference(module: nn.Module) -> nn.Module:
    """The module without dropout and gradients."""
    return module.eval().requires_grad_(False)
