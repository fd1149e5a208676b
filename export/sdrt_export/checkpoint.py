"""Checkpoints: a folder in diffusers' layout, or an architecture with random weights.

The classes of components come from :data:`sdrt_export.components.COMPONENTS`. The names in ``model_index.json`` are
only compared with it. Weights are read from safetensors, memory-mapped. Nothing in a checkpoint is executed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdrt.errors import ExportError, IntegrityError, ModelNotFoundError, RequestError, UnsupportedModelError
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.model_folder.index import INDEX_NAME, check_checkpoint_index
from sdrt.model_folder.manifest import read_json, readable
from sdrt_export.architectures import ARCHITECTURES
from sdrt_export.components import COMPONENTS

__all__ = ["Checkpoint", "FolderCheckpoint", "RandomCheckpoint", "open_folder"]

_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class Checkpoint(Protocol):
    """A source of components. The manifest records ``name`` and ``revision``."""

    @property
    def name(self) -> str:
        """A folder's name or a hub id."""

    @property
    def revision(self) -> str | None:
        """The hub's commit, None for a folder."""

    def load(self, part: str) -> nn.Module:
        """The torch module of the folder ``part`` ("text_encoder", "unet", "vae"), in float32 for inference."""

    def scheduler_config(self) -> dict[str, Any]:
        """The content of ``scheduler_config.json``."""

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        """The same for an upscaler's second scheduler. None without one."""

    def index(self) -> dict[str, Any]:
        """The content of ``model_index.json``. Empty without one."""

    def tokenizer_folder(self) -> Path | None:
        """The folder of the tokenizer's files. None without one."""

    def size(self) -> int:
        """The bytes of the exported weights in float32."""


# --- a diffusers folder -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FolderCheckpoint:
    """A folder in diffusers' layout, checked by :func:`open_folder`."""

    folder: Path
    name: str
    revision: str | None = None

    def load(self, part: str) -> nn.Module:
        """See :class:`Checkpoint`."""
        model_class = _classes()[part][1]
        files = _weights(self.folder / part)
        variant = "fp16" if all(".fp16." in file.name for file in files) else None
        dtype = {"torch_dtype": torch.float32} if part != "text_encoder" else {"dtype": torch.float32}
        try:
            module, info = model_class.from_pretrained(  # type: ignore[attr-defined]
                self.folder / part,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=True,
                output_loading_info=True,
                **dtype,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ExportError(
                f"{self.folder / part} cannot be loaded as {model_class.__name__}: {reason}"
            ) from error
        assert isinstance(module, nn.Module)
        _check_complete(self.folder / part, sorted(info["missing_keys"]))
        return _for_inference(module)

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

    def tokenizer_folder(self) -> Path | None:
        """See :class:`Checkpoint`."""
        return self.folder / "tokenizer"

    def files(self) -> list[Path]:
        """The files that are read: weights, configs, tokenizer."""
        found = [path for part in _classes() for path in _weights(self.folder / part)]
        found += [
            path for part in _classes() for path in (self.folder / part).glob("*.safetensors.index*.json")
        ]
        found += [self.folder / part / "config.json" for part in _classes()]
        found += [path for path in (self.folder / "tokenizer").iterdir() if path.suffix in (".json", ".txt")]
        return [*found, self.folder / "scheduler" / "scheduler_config.json"]

    def size(self) -> int:
        """See :class:`Checkpoint`. Reads the headers of the safetensors files."""
        return 4 * sum(_elements(file) for part in _classes() for file in _weights(self.folder / part))


def _check_complete(folder: Path, missing: list[str]) -> None:
    """Raise IntegrityError for missing weights, which both libraries leave random with no more than a log message."""
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise IntegrityError(f"{folder}: the weights lack {missing[0]}{more}: download the checkpoint again")


def open_folder(folder: Path, name: str | None = None, revision: str | None = None) -> FolderCheckpoint:
    """Check that ``folder`` is a Stable Diffusion checkpoint of known classes in safetensors.

    Raises:
        ModelNotFoundError: the folder does not exist, or is not in diffusers' layout.
        UnsupportedModelError: a class is not in the table, or weights are pickles.
    """
    if not folder.exists():
        raise ModelNotFoundError(
            f"there is no checkpoint folder {folder}: expected a folder in diffusers' layout or a hub id"
        )
    if folder.is_file():
        raise _single_file(folder)
    with readable(folder):
        return _open_folder(folder, name, revision)


def _open_folder(folder: Path, name: str | None, revision: str | None) -> FolderCheckpoint:
    if not (folder / "model_index.json").is_file():
        raise ModelNotFoundError(
            f"{folder} has no model_index.json: expected a checkpoint in diffusers' layout"
        )
    check_checkpoint_index(folder)
    for part in _classes():
        _read_config(folder / part / "config.json")
        _weights(folder / part)
    _read_config(folder / "scheduler" / "scheduler_config.json")
    _check_task(folder)
    _check_tokenizer(folder / "tokenizer")
    return FolderCheckpoint(folder=folder, name=name or folder.resolve().name, revision=revision)


def _check_task(folder: Path) -> None:
    """Check what would otherwise fail after tracing."""
    unet, vae = (_read_config(folder / part / "config.json") for part in ("unet", "vae"))
    if {"in_channels", "out_channels"} <= unet.keys() and "latent_channels" in vae:
        task = STABLE_DIFFUSION.task_of(unet, vae["latent_channels"])
        if task.has_noise_level:
            _read_config(folder / "low_res_scheduler" / "scheduler_config.json")


def _single_file(path: Path) -> UnsupportedModelError:
    reason = (
        "a pickle runs code when it is read"
        if path.suffix in _PICKLES
        else "single-file checkpoints are not supported"
    )
    return UnsupportedModelError(
        f"{path}: {reason}: expected a folder in diffusers' layout with .safetensors; if you trust the file, "
        "convert it with diffusers' StableDiffusionPipeline.from_single_file(…).save_pretrained(…)"
    )


def _classes() -> dict[str, tuple[str, type[nn.Module]]]:
    return {row.checkpoint: (row.library, row.model_class) for row in COMPONENTS.values()}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is missing: the download may be incomplete")
    return read_json(path)


def _check_tokenizer(folder: Path) -> None:
    files = ("vocab.json", "merges.txt")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing and not (folder / "tokenizer.json").is_file():
        raise ModelNotFoundError(f"{folder / missing[0]} is missing: the download may be incomplete")


def _weights(folder: Path) -> list[Path]:
    """The safetensors files of one component, in full precision if there are any, else in fp16.

    Raises:
        UnsupportedModelError: there are only pickles.
        ModelNotFoundError: there are no weights.
    """
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if not re.search(r"\.(fp16|non_ema|bf16)\b", file.name)]
    half = [file for file in files if ".fp16." in file.name]
    # A folder may have the same text encoder under both libraries' names. Loaders take the first that they know.
    for candidates in (plain, half):
        if candidates:
            return candidates
    pickles = sorted(file for file in folder.glob("*") if file.suffix in _PICKLES)
    if pickles:
        raise UnsupportedModelError(
            f"{pickles[0]}: a pickle runs code when it is read, so only .safetensors is accepted; "
            "use a revision that has them, or convert it with diffusers' save_pretrained(…, safe_serialization=True)"
        )
    raise ModelNotFoundError(
        f"{folder} has no .safetensors weights: download the checkpoint again, or use a revision that has them; "
        "pickles are not accepted, because they run code when they are read"
    )


def _elements(file: Path) -> int:
    try:
        with safe_open(file, framework="pt") as handle:
            return sum(_product(handle.get_slice(key).get_shape()) for key in handle.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise IntegrityError(
            f"{file} is not a complete safetensors file ({error}): download it again"
        ) from error


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


# --- random weights -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RandomCheckpoint:
    """A full-size architecture with random weights, for measuring a device without a download."""

    architecture: str
    seed: int

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(sorted(ARCHITECTURES))
            raise RequestError(f"unknown architecture {self.architecture!r}: expected one of {known}")
        if not 0 <= self.seed < 2**32:
            raise RequestError(f"--random-weights {self.seed}: expected a seed from 0 to {2**32 - 1}")

    @property
    def name(self) -> str:
        """The source's name in the manifest."""
        return f"{self.architecture}-random-{self.seed}"

    @property
    def revision(self) -> str | None:
        """None, because nothing was downloaded."""
        return None

    def load(self, part: str) -> nn.Module:
        """See :class:`Checkpoint`. Each parameter has its own seed, so their order does not matter."""
        config = ARCHITECTURES[self.architecture][part]
        with torch.device("meta"):
            module = _build(part, config)
        module = module.to_empty(device="cpu")
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                _draw(name, parameter, self.seed)
        for name, buffer in module.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
        return _for_inference(module)

    def scheduler_config(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return dict(ARCHITECTURES[self.architecture]["scheduler"])

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        """See :class:`Checkpoint`."""
        return (
            dict(low_res) if (low_res := ARCHITECTURES[self.architecture].get("low_res_scheduler")) else None
        )

    def index(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return {}

    def tokenizer_folder(self) -> Path | None:
        """None. Random weights know no words, so the exporter writes a byte-level tokenizer."""
        return None

    def size(self) -> int:
        """See :class:`Checkpoint`."""
        with torch.device("meta"):
            modules = [_build(part, ARCHITECTURES[self.architecture][part]) for part in _classes()]
        return 4 * sum(p.numel() for module in modules for p in module.parameters())


def _build(part: str, config: Mapping[str, Any]) -> nn.Module:
    builders: dict[str, Any] = {
        "text_encoder": lambda c: CLIPTextModel(CLIPTextConfig(**c)),
        "unet": lambda c: UNet2DConditionModel(**c),
        "vae": lambda c: AutoencoderKL(**c),
    }
    module = builders[part](config)
    assert isinstance(module, nn.Module)
    return module


def _draw(name: str, parameter: torch.Tensor, seed: int) -> None:
    """Draw norms around 1, biases around 0, and matrices scaled by fan-in, so that the signal keeps its size."""
    generator = torch.Generator().manual_seed(seed ^ zlib.crc32(name.encode()))
    if parameter.ndim == 1:
        parameter.normal_(float("norm" in name and name.endswith("weight")), 0.02, generator=generator)
    else:
        fan_in = parameter[0].numel()
        parameter.normal_(
            0.0, 0.5 if "embedding" in name and "linear" not in name else fan_in**-0.5, generator=generator
        )


def _for_inference(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)
