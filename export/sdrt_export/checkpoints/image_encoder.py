"""CLIP's vision encoder, in a folder of transformers or in a file of its own, as ComfyUI keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrt.common.file_kind import PICKLES, kind_of
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.manifest import read_downloaded
from sdrt_export.checkpoints.config_errors import naming_config
from sdrt_export.checkpoints.derived.shapes import Shapes
from sdrt_export.checkpoints.parts import Part, class_of_config
from sdrt_export.checkpoints.usage import check_usage
from sdrt_export.checkpoints.weight_files import check_numbers, find_weights
from sdrt_export.components.image_encoder import IMAGE_ENCODER
from sdrt_export.components.outline import tensors_of
from sdrt_export.tensors.lazy import MappedFile, Tensors

__all__ = ["open_image_encoder"]

_FITS = "a folder of transformers' CLIPVisionModelWithProjection, or its .safetensors file"
_FOLDER, _CONFIG = "image_encoder", "config.json"
_ROOT = "vision_model.embeddings"
# The tensors do not show the heads: 64 wide in OpenAI's encoders, 80 and 104 in OpenCLIP's H and bigG.
_HEADS = {768: 12, 1024: 16, 1280: 16, 1664: 16}
# OpenAI's encoders have quick_gelu, OpenCLIP's have gelu.
_QUICK = (768, 1024)


def open_image_encoder(path: Path) -> Part:
    """Open a vision encoder: a folder, `image_encoder` inside of it, or a file.

    Raises:
        ModelNotFoundError: there is none.
        UnsupportedModelError: it is a pickle, damaged, or of another architecture.
        IntegrityError: its tensors do not fit its config.
    """
    part = _of_folder(path) if path.is_dir() else _of_file(path)
    with naming_config(Path(part.place), IMAGE_ENCODER.name):
        needed = tensors_of([IMAGE_ENCODER], part.config)
    check_usage(part.place, [IMAGE_ENCODER], [needed], part.tensors)
    return part


def _of_folder(folder: Path) -> Part:
    if not (folder / _CONFIG).is_file():
        folder = folder / _FOLDER
    if not (folder / _CONFIG).is_file():
        raise ModelNotFoundError.expected(
            f"{folder.parent} has no {_CONFIG} and no {_FOLDER}/{_CONFIG}",
            _FITS,
            argument="image_encoder",
            path=folder.parent,
        )
    config = read_downloaded(folder / _CONFIG, IMAGE_ENCODER.name)
    if (found := class_of_config(config)) and ("CLIP" not in found or "Text" in found):
        raise ModelNotFoundError.expected(
            f"{folder} has a {found}", _FITS, argument="image_encoder", path=folder
        )
    tensors = Tensors.of_files(find_weights(folder, IMAGE_ENCODER.library).files)
    return Part(config=config, tensors=tensors, place=str(folder))


def _of_file(path: Path) -> Part:
    if path.suffix.lower() in PICKLES:
        raise UnsupportedModelError.advised(
            f"{path} is a pickle, which runs code when it is read", f"give {_FITS}", path=path
        )
    try:
        file = MappedFile.open(path)
    except OSError as error:
        raise ModelNotFoundError.expected(
            f"{path} cannot be read ({error.strerror or error})", _FITS, argument="image_encoder", path=path
        ) from None
    shapes = Shapes(path, "image encoder", {name: one.shape for name, one in file.header.tensors.items()})
    if f"{_ROOT}.patch_embedding.weight" not in shapes:
        kind = kind_of(file.header) or "a safetensors file of an unknown kind"
        raise ModelNotFoundError.expected(f"{path} is {kind}", _FITS, argument="image_encoder", path=path)
    check_numbers([path])
    return Part(config=_derived(shapes), tensors=Tensors.of_files([path]), place=str(path))


def _derived(shapes: Shapes) -> dict[str, Any]:
    """The config, from the shapes of the tensors."""
    width, channels, patch, _ = shapes.of(f"{_ROOT}.patch_embedding.weight", 4)
    positions, _ = shapes.of(f"{_ROOT}.position_embedding.weight", 2)
    side = round((positions - 1) ** 0.5)
    if width not in _HEADS or side * side != positions - 1:
        raise shapes.refused(
            f"is {width} wide and has {positions} positions",
            f"one of {', '.join(map(str, _HEADS))}, and a square of patches; for others, a folder with {_CONFIG}",
        )
    return {
        "hidden_size": width,
        "intermediate_size": shapes.of("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": shapes.counted("vision_model.encoder.layers.{}.layer_norm1.weight"),
        "num_attention_heads": _HEADS[width],
        "num_channels": channels,
        "patch_size": patch,
        "image_size": side * patch,
        "projection_dim": shapes.of("visual_projection.weight", 2)[0],
        "hidden_act": "quick_gelu" if width in _QUICK else "gelu",
        "layer_norm_eps": 1e-5,
        "model_type": "clip_vision_model",
    }
