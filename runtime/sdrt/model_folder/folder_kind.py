"""Finds out what a folder without a `model_index.json` holds, by its configs and files. It loads no weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief
from sdrt.common.safetensors_file import read_header
from sdrt.errors import IntegrityError, ModelError, ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.file_kind import CHECKPOINT, WEIGHTS, kind_of
from sdrt.model_folder.manifest import read_json

__all__ = ["refusal_of_folder"]

_FITS = "a model folder: make one with sdrt export"
# Patterns of classes in configs, and their names in messages.
_CLASSES: Sequence[tuple[str, str]] = (
    (r"ControlNet.*|.*ControlNetModel", "a ControlNet"),
    (r"T2IAdapter|MultiAdapter", "a T2I-Adapter"),
    (r"MotionAdapter", "a motion module"),
    (r"AutoencoderTiny", "a small VAE (TAESD), which --taesd takes,"),
    (r"Autoencoder\w*|VQModel|ConsistencyDecoderVAE|AsymmetricAutoencoderKL", "a VAE"),
    (r"UNet\w*", "a U-Net"),
    (r"\w*Transformer\w*Model|\w*DiTModel|\w*DiT2DModel", "a diffusion transformer"),
    (r"\w*Scheduler", "a scheduler"),
    (r"(CLIP|T5|UMT5)\w*", "a text encoder"),
    (r"\w+ForCausalLM|\w+ForConditionalGeneration", "a language model"),
)
_PARTS = ("unet", "transformer", "vae", "vae_decoder", "text_encoder")


def refusal_of_folder(folder: Path) -> ModelError:
    """Return the error for a folder that is no model, because it lacks `model_index.json`. It says what is there."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not names:
        return _no_model(folder, "is empty")
    if what := _described(folder):
        return _no_model(folder, f"holds no model_index.json, and is {what}, not a whole model")
    parts = [name for name in _PARTS if (folder / name).is_dir()]
    if parts:
        return ModelNotFoundError.advised(
            f"{folder} holds {' and '.join(parts)}, but no model_index.json",
            "download the whole checkpoint, or copy the whole model folder",
            argument="model",
            path=folder,
        )
    weights = [folder / name for name in names if Path(name).suffix.lower() in WEIGHTS]
    if weights:
        return _with_weights(folder, weights)
    return _no_model(folder, "holds no model_index.json")


def _described(folder: Path) -> str | None:
    """The kind of component in the folder, from its configs. None if no config names a class."""
    if (folder / "adapter_config.json").is_file():
        return "a LoRA of peft"
    for name in ("config.json", "scheduler_config.json"):
        for found in _classes(folder / name):
            kind = next((kind for pattern, kind in _CLASSES if re.fullmatch(pattern, found)), "one component")
            return f"{kind} ({brief(found)})"
    return None


def _classes(path: Path) -> Iterator[str]:
    config: Mapping[str, Any] = {}
    if path.is_file():
        try:
            config = read_json(path)
        except IntegrityError:
            return
    listed = config.get("architectures")
    for found in (config.get("_class_name"), *(listed if isinstance(listed, list) else ())):
        if isinstance(found, str):
            yield found


def _with_weights(folder: Path, weights: Sequence[Path]) -> ModelError:
    first = weights[0]
    more = f" and {len(weights) - 1} more" if len(weights) > 1 else ""
    if first.suffix.lower() != ".safetensors":
        return _no_model(folder, f"holds {first.name}{more}, but no model_index.json")
    try:
        kind = kind_of(read_header(first))
    except UnsupportedModelError as error:
        return _no_model(folder, f"holds no model_index.json; {error}")
    except OSError as error:
        problem = f"holds no model_index.json, and {first.name} cannot be read ({error.strerror or error})"
        return _no_model(folder, problem)
    if kind is not None and kind.what == CHECKPOINT:
        return ModelNotFoundError.advised(
            f"{folder} is not in diffusers' layout, but holds {first.name}, {kind}{more}",
            f"give the file itself, {first}",
            argument="model",
            path=folder,
        )
    return _no_model(
        folder, f"holds {first.name}, {kind or 'weights of an unknown kind'}{more}, not a whole model"
    )


def _no_model(folder: Path, problem: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{folder} {problem}, expected {_FITS}", argument="model", path=folder, fits=_FITS
    )
