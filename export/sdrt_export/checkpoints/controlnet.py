"""ControlNets as users have them: diffusers' folders, and single files of lllyasviel's kind or in diffusers' names.

T2I-Adapters come by the same door.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrt.common.file_kind import kind_of
from sdrt.errors import IntegrityError, ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.adapter_place import CONTROLNET_FITS
from sdrt.model_folder.manifest import read_downloaded, readable
from sdrt.model_folder.model import CONTROLNET
from sdrt_export.architectures.controlnet_config import ControlNetConfig, residual_channels
from sdrt_export.architectures.t2i_adapter import T2IAdapterConfig
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.checkpoints.config_errors import naming_config
from sdrt_export.checkpoints.defaults import completed
from sdrt_export.checkpoints.derived.controlnet import derived_controlnet, is_diffusers_controlnet
from sdrt_export.checkpoints.folder import read_tensors
from sdrt_export.checkpoints.keys.controlnet import controlnet_rows, diffusers_controlnet_rows
from sdrt_export.checkpoints.parts import Config, Part, Section, class_of_config
from sdrt_export.checkpoints.separate import open_weights
from sdrt_export.checkpoints.t2i_adapter import (
    T2I_ADAPTER,
    check_adapter_fits,
    is_t2i_adapter,
    t2i_adapter_part,
)
from sdrt_export.checkpoints.weight_files import find_weights
from sdrt_export.tensors.lazy import MappedFile

__all__ = ["check_fits", "open_controlnet_part"]

_CLASS, _CONFIG = "ControlNetModel", "config.json"
_MODELS: Mapping[int, str] = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}
_PREFIXES = ("control_model.", "controlnet.", "")
# Other networks that guide a U-Net, by a name that only their files have. The first row counts.
_OTHERS: Sequence[tuple[str, str]] = (
    (r"^(adapter\.)?style_embedding$", "a T2I-Adapter for style"),
    (
        r"^(task_embedding|spatial_ch_projs\.|control_add_embedding\.|transformer_layes\.)",
        "a ControlNet-Union",
    ),
    (
        r"(^|\.)(enc_zero_convs_(in|out)|dec_zero_convs_out|control_to_base_for_conv_in|(base_to_ctrl|ctrl_to_base)\b)",
        "a ControlNet-XS",
    ),
    (r"^lora_controlnet$", "a Control-LoRA"),
    (r"^lllite_", "a ControlNet-LLLite"),
    (r"^difference$", "the difference between a ControlNet and a model"),
    (r"(^|\.)(motion_modules?|temporal_transformer)\.", "a SparseCtrl"),
)
# lllyasviel's shuffle is the only one that pools. Nothing in its file says so: other programs too go by the name.
_POOLS = re.compile(r"(^|[_-])shuffle([_.-]|$)", re.IGNORECASE)


def open_controlnet_part(path: Path, unet: Mapping[str, Any]) -> Part:
    """Open a ControlNet for a model whose U-Net has the config `unet`. `check_fits` checks whether it fits.

    Args:
        path: a file in lllyasviel's, TencentARC's or diffusers' names, or a folder of a ControlNetModel or T2IAdapter.
        unet: the config of the model's U-Net, which has what a file does not say.

    Raises:
        ModelNotFoundError: there is no such file, or it is no ControlNet.
        UnsupportedModelError: it is a pickle, or a network that is not supported, which the error names.
        IntegrityError: it is damaged.
    """
    if path.is_dir():
        with readable(path):
            return _folder(path)
    file = open_weights(path, "a ControlNet")
    if is_t2i_adapter(file.header.tensors):
        return t2i_adapter_part(file)
    section = _section(file)
    shapes = section.shapes
    config = {**derived_controlnet(shapes, unet), "global_pool_conditions": bool(_POOLS.search(path.stem))}
    rows = (
        diffusers_controlnet_rows()
        if is_diffusers_controlnet(shapes)
        else controlnet_rows(ControlNetConfig.of(config))
    )
    part = section.taken_by(rows)
    return Part(config=completed(_CLASS, config), tensors=part.tensors, place=str(path))


def _section(file: MappedFile) -> Section:
    """The ControlNet's tensors. Raises an error that says what the file is, if it has none."""
    path, names = file.header.path, list(file.header.tensors)
    for pattern, what in _OTHERS:
        if any(re.search(pattern, name) for name in names):
            raise UnsupportedModelError.expected(
                f"{path} is {what}, which sdrt cannot run", CONTROLNET_FITS, path=path, component=CONTROLNET
            )
    section = Section.of(file, CONTROLNET, _PREFIXES)
    first = ("controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight")
    if section is None or not any(name in section.shapes for name in first):
        kind = kind_of(file.header)
        if str(kind) == "a ControlNet":
            raise IntegrityError.advised(
                f"{path} is a ControlNet that lacks {' or '.join(first)}", "download it again", path=path
            )
        raise ModelNotFoundError.expected(
            f"{path} is {kind or 'a safetensors file of an unknown kind'}",
            CONTROLNET_FITS,
            argument=CONTROLNET,
            path=path,
        )
    return section


def _folder(folder: Path) -> Part:
    """A folder of diffusers, or its `controlnet` in the folder of a whole model."""
    folder = folder / CONTROLNET if (folder / CONTROLNET / _CONFIG).is_file() else folder
    if not (folder / _CONFIG).is_file():
        raise ModelNotFoundError.expected(
            f"controlnet is {str(folder)!r}, which has no {_CONFIG}",
            CONTROLNET_FITS,
            argument=CONTROLNET,
            path=folder,
        )
    config: Config = read_downloaded(folder / _CONFIG, CONTROLNET)
    if (found := class_of_config(config)) and not ("Control" in found or "Adapter" in found):
        raise ModelNotFoundError.expected(
            f"{folder} has a {found}", CONTROLNET_FITS, argument=CONTROLNET, path=folder
        )
    is_adapter = found == T2I_ADAPTER or (not found and "adapter_type" in config)
    class_name = T2I_ADAPTER if is_adapter else _CLASS
    if is_adapter:
        # The runtime reads its keys too, and for it null is no default.
        config = {key: value for key, value in config.items() if value is not None}
    # Names the class before its weights are looked for.
    with naming_config(folder, CONTROLNET):
        (T2IAdapterConfig if class_name == T2I_ADAPTER else ControlNetConfig).of(config)
    tensors = read_tensors(find_weights(folder, "diffusers").files, class_name)
    return Part(config=completed(class_name, config), tensors=tensors, place=str(folder))


def check_fits(part: Part, unet: Mapping[str, Any], model: str, *, channels: int, factor: int) -> None:
    """Check that a ControlNet is for the U-Net with the config `unet` of `model`.

    `channels` and `factor` are those of the model's latents: how many, and how many pixels of the image make one.

    Raises:
        UnsupportedModelError: it is for another model.
    """
    if class_of_config(part.config) == T2I_ADAPTER:
        check_adapter_fits(part, unet, model, factor=factor)
        return
    own, other = ControlNetConfig.of(part.config), UNetConfig.of(unet)
    half = own.unet
    if half.context_width != other.context_width:
        raise UnsupportedModelError.expected(
            f"{part.place} is a ControlNet for {_of_width(half.context_width)}",
            f"one for {_of_width(other.context_width)}, as {model} is",
            component=CONTROLNET,
        )
    for what, found, wanted in (
        ("blocks of {} channels", half.channels, other.channels),
        ("values of {} channels before its middle", residual_channels(half), residual_channels(other)),
        ("{} channels of latents", half.in_channels, channels),
        ("{} numbers beside the timestep", half.added_width, other.added_width),
        ("{} class labels", half.num_class_embeds, other.num_class_embeds),
        ("control images of {} pixels per latent", own.factor, factor),
    ):
        if found != wanted:
            shown, fits = (str(list(one) if isinstance(one, tuple) else one) for one in (found, wanted))
            raise UnsupportedModelError.expected(
                f"{part.place}: the ControlNet has {what.format(shown)}",
                f"{fits}, as {model} has",
                component=CONTROLNET,
            )


def _of_width(width: int) -> str:
    """The models whose texts have this width."""
    return _MODELS.get(width, f"models with texts of width {width}")
