"""VAEs and text encoders in files of their own, as A1111 and ComfyUI keep them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdrt.common.file_kind import PICKLES, kind_of
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.manifest import read_downloaded
from sdrt_export.checkpoints.defaults import completed
from sdrt_export.checkpoints.derived.clip import is_open_clip, projection_of
from sdrt_export.checkpoints.folder import read_tensors
from sdrt_export.checkpoints.given_configs import GivenConfigs
from sdrt_export.checkpoints.kinds import Kind, TextPart
from sdrt_export.checkpoints.parts import Config, Part, Section, text_part, vae_part
from sdrt_export.checkpoints.weight_files import find_weights
from sdrt_export.tensors.lazy import MappedFile

__all__ = ["open_text_encoders", "open_vae_file", "open_weights"]

_VAE, _TEXT = "vae", "text_encoder"
_VAE_PREFIXES = ("first_stage_model.", "vae.", "")
_TEXT_PREFIXES = (
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    "conditioner.embedders.0.model.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "clip_l.transformer.",
    "clip_g.transformer.",
    "",
)
_TEXT_FITS = "a text encoder of CLIP with the tensor names of A1111, transformers or OpenCLIP"
_CONFIG = "config.json"
_SMALL = 768


def open_vae_file(path: Path, *, config: Config | None = None, given: Config) -> Part:
    """Open a VAE: a file in CompVis' or diffusers' names, or a folder of an AutoencoderKL.

    Args:
        path: the file or folder.
        config: the config, if it is known. A folder has its own.
        given: the values of the config that the tensors do not show.

    Raises:
        ModelNotFoundError: there is no such file, or it is no VAE.
        UnsupportedModelError: it is damaged, a pickle, or of an architecture that is not supported.
    """
    if path.is_dir():
        return _vae_folder(path, given)
    file = open_weights(path, "a VAE")
    section = Section.of(file, _VAE, _VAE_PREFIXES)
    if section is None or "decoder.conv_in.weight" not in section.shapes:
        raise _other(file, "a VAE", "vae")
    return vae_part(section, config, given=given)


def _vae_folder(folder: Path, given: Config) -> Part:
    """A folder of diffusers, or its `vae` in the folder of a whole model."""
    folder = folder / _VAE if (folder / _VAE / _CONFIG).is_file() else folder
    if not (folder / _CONFIG).is_file():
        raise ModelNotFoundError.expected(
            f"vae is {str(folder)!r}, which has no {_CONFIG}",
            "a folder of diffusers' AutoencoderKL, or a .safetensors file",
            argument="vae",
            path=folder,
        )
    config = read_downloaded(folder / _CONFIG, _VAE)
    if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        raise UnsupportedModelError.expected(
            f"{folder / _CONFIG}: _class_name is {config['_class_name']!r}", "AutoencoderKL", path=folder
        )
    tensors = read_tensors(find_weights(folder, "diffusers").files, "AutoencoderKL")
    scaling = {"scaling_factor": given["scaling_factor"]} if "scaling_factor" in given else {}
    return Part(config=completed("AutoencoderKL", {**scaling, **config}), tensors=tensors, place=str(folder))


def open_text_encoders(paths: Sequence[Path], kind: Kind, configs: GivenConfigs) -> dict[str, Part]:
    """Open files of text encoders. Return them by the model's part that each one is.

    Raises:
        ModelNotFoundError: there is no such file, or it is no text encoder.
        UnsupportedModelError: it is damaged, a pickle, or no part of a model of this kind.
    """
    found: dict[str, Part] = {}
    for path in paths:
        file = open_weights(path, "a text encoder")
        section = Section.of(file, _TEXT, _TEXT_PREFIXES)
        if section is None or not _is_clip(section):
            raise _other(file, _TEXT_FITS, "text_encoders")
        spec = _spec(kind, section)
        if spec.part in found:
            raise UnsupportedModelError.expected(
                f"{path} is a {spec.part}, and so is another file",
                f"one for each of {kind.title}",
                path=path,
            )
        with configs.errors_of(spec.part):
            found[spec.part] = text_part(section, configs.config(spec.part, spec.class_name), spec)
    return found


def _is_clip(section: Section) -> bool:
    names = (
        "token_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
        "embeddings.token_embedding.weight",
    )
    return any(name in section.shapes for name in names)


def _spec(kind: Kind, section: Section) -> TextPart:
    """Which part of the model a file is. SDXL's two are CLIP's own and OpenCLIP's bigG."""
    if len(kind.text) == 1:
        return kind.text[0]
    # Either may have transformers' names and a projection. CLIP's own is 768 wide, bigG's 1280.
    shapes = section.shapes
    is_big = is_open_clip(shapes) or (projection_of(shapes) or 0) > _SMALL
    return next(spec for spec in kind.text if spec.projected == is_big)


def open_weights(path: Path, what: str) -> MappedFile:
    """Open a safetensors file, which should hold `what`, such as "a VAE".

    Raises:
        ModelNotFoundError: there is no such file.
        UnsupportedModelError: it is a pickle, or damaged.
    """
    if path.suffix.lower() in PICKLES:
        raise UnsupportedModelError.advised(
            f"{path} is a pickle, which runs code when it is read", f"give {what} as .safetensors", path=path
        )
    try:
        return MappedFile.open(path)
    except OSError as error:
        raise ModelNotFoundError.expected(
            f"{path} cannot be read ({error.strerror or error})", f"a safetensors file of {what}", path=path
        ) from None


def _other(file: MappedFile, fits: str, argument: str) -> ModelNotFoundError:
    path, kind = file.header.path, kind_of(file.header)
    return ModelNotFoundError.expected(
        f"{path} is {kind or 'a safetensors file of an unknown kind'}", fits, argument=argument, path=path
    )
