"""`model_index.json`: the classes it may name. They are compared with the tables below and never imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError
from sdrt.families.unet_tasks import KINDS
from sdrt.model_folder.manifest import read_json

__all__ = ["INDEX_NAME", "check_checkpoint_index", "check_index", "class_of"]

INDEX_NAME = "model_index.json"
_CHECKPOINT_PIPELINES = frozenset({kind.pipeline for kind in KINDS} | {"StableDiffusionImg2ImgPipeline"})
_PIPELINES = _CHECKPOINT_PIPELINES | frozenset(
    {"OnnxStableDiffusionPipeline", "ORTStableDiffusionPipeline"}
    | {"StableDiffusionInpaintPipelineLegacy", "OnnxStableDiffusionInpaintPipeline"}
    | {"ORTStableDiffusionImg2ImgPipeline", "ORTStableDiffusionInpaintPipeline"}
)
_ONNX = frozenset({"OnnxRuntimeModel"})
# What each entry may name. None: the entry's own config file decides (scheduler).
_CLASSES: Mapping[str, frozenset[str] | None] = {
    "text_encoder": _ONNX | {"CLIPTextModel", "ORTTextEncoder", "ORTModelTextEncoder"},
    "tokenizer": frozenset({"CLIPTokenizer", "CLIPTokenizerFast"}),
    "unet": _ONNX | {"UNet2DConditionModel", "ORTUnet", "ORTModelUnet"},
    "vae": frozenset({"AutoencoderKL", "ORTVae", "ORTWrapperVae"}),
    "vae_decoder": _ONNX | {"AutoencoderKL", "ORTVaeDecoder", "ORTModelVaeDecoder"},
    "vae_encoder": _ONNX | {"AutoencoderKL", "ORTVaeEncoder", "ORTModelVaeEncoder"},
    "scheduler": None,
    "low_res_scheduler": None,
}
_LIBRARIES = frozenset({"diffusers", "transformers", "optimum", "onnxruntime", "sdrt"})
# Parts of a checkpoint that text to image never calls.
_IGNORED = frozenset({"safety_checker", "feature_extractor", "image_encoder", "watermarker"})

# What a checkpoint that can be exported must name.
_CHECKPOINT: Mapping[str, tuple[str, frozenset[str]]] = {
    "text_encoder": ("transformers", frozenset({"CLIPTextModel"})),
    "tokenizer": ("transformers", frozenset({"CLIPTokenizer", "CLIPTokenizerFast"})),
    "unet": ("diffusers", frozenset({"UNet2DConditionModel"})),
    "vae": ("diffusers", frozenset({"AutoencoderKL"})),
}


def check_index(folder: Path) -> dict[str, Any]:
    """The index of an exported model. Raises `UnsupportedModelError` for a class that sdrt cannot run."""
    path = folder / INDEX_NAME
    index = read_json(path)
    _check_pipeline(path, index, _PIPELINES)
    for name, library, found in _components(path, index):
        if name not in _CLASSES:
            raise UnsupportedModelError(
                f"{path}: component {name!r} ({found}) is not part of Stable Diffusion 1 or 2"
            )
        allowed = _CLASSES[name]
        if library.split(".")[0] not in _LIBRARIES or (allowed is not None and found not in allowed):
            known = ", ".join(sorted(allowed)) if allowed else "diffusers' own"
            raise UnsupportedModelError(
                f"{path}: {name} names class {library}.{found}, which sdrt cannot run; known: {known}"
            )
    return index


def check_checkpoint_index(folder: Path) -> dict[str, Any]:
    """The index of a torch checkpoint. Raises `UnsupportedModelError` for a class that sdrt cannot export."""
    path = folder / INDEX_NAME
    index = read_json(path)
    _check_pipeline(path, index, _CHECKPOINT_PIPELINES)
    for name, (library, classes) in _CHECKPOINT.items():
        if not any(index.get(name) == [library, known] for known in classes):
            expected = " or ".join(repr([library, known]) for known in sorted(classes))
            raise UnsupportedModelError(
                f"{path}: {name} is {brief(index.get(name))}, expected {expected}: classes come from a fixed "
                "table, code of a checkpoint is never run"
            )
    return check_index(folder)


def class_of(entry: object) -> str | None:
    """The class that an entry of the index names; None for an absent component."""
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _check_pipeline(path: Path, index: Mapping[str, Any], known: frozenset[str]) -> None:
    found = index.get("_class_name")
    if not isinstance(found, str) or found not in known:
        raise UnsupportedModelError(
            f"{path}: pipeline class {brief(found)} is not supported; known: {', '.join(sorted(known))}"
        )


def _components(path: Path, index: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, library and class of every component that is there and is used."""
    for name, entry in index.items():
        is_option = name not in _CLASSES and (entry is None or isinstance(entry, (bool, int, float)))
        if name.startswith("_") or is_option:
            continue
        if not _is_pair(entry):
            raise UnsupportedModelError(
                f"{path}: {name} is {brief(entry)}, expected a library and a class, as in "
                '["diffusers", "UNet2DConditionModel"]'
            )
        library, found = entry
        if found is not None and name not in _IGNORED:
            yield name, str(library), found


def _is_pair(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and all(part is None or isinstance(part, str) for part in entry)
    )
