"""TAESD, a small decoder that imitates the VAE's, for previews (https://github.com/madebyollin/taesd)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny
from torch import nn

from sdrt.errors import ExportError, ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.folder import TAESD_DECODER, exists, expand
from sdrt.model_folder.manifest import read_json
from sdrt_export.architectures.taesd import TaesdConfig, taesd_decoder
from sdrt_export.components import COMPONENTS
from sdrt_export.graphs.layers import Layers

__all__ = ["TAESD", "load_taesd"]

_FACTOR = 8


def load_taesd(source: str | Path, hub_options: Mapping[str, Any]) -> nn.Module:
    """Load diffusers' `AutoencoderTiny` from a folder or hub id, such as ``madebyollin/taesd``.

    Raises:
        ModelNotFoundError: it does not exist.
        UnsupportedModelError: it is another kind of model.
        ExportError: its weights cannot be read.
    """
    folder = expand(source)
    if not exists(folder):
        from sdrt.model_folder import hub

        folder = hub.download_taesd(hub.check_id(source), **hub_options)
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError.expected(
            f"--taesd {source} has no config.json", "a folder of diffusers' AutoencoderTiny", argument="taesd"
        )
    found = read_json(folder / "config.json").get("_class_name")
    if found != AutoencoderTiny.__name__:
        raise UnsupportedModelError.expected(
            f"--taesd {source} is of class {found}",
            "AutoencoderTiny, such as madebyollin/taesd",
            argument="taesd",
        )
    try:
        module = AutoencoderTiny.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ExportError(
            f"--taesd {source} cannot be loaded as AutoencoderTiny: {reason}", argument="taesd"
        ) from error
    assert isinstance(module, nn.Module)
    return module.float().eval().requires_grad_(False)


def _write(values: Mapping[str, Any], g: Layers, hosted: bool) -> None:
    """Write the graph, if latents are like Stable Diffusion's, of eight pixels a side."""
    config = TaesdConfig.of(values)
    if config.latent_channels != 4 or config.factor != _FACTOR:
        raise UnsupportedModelError.advised(
            f"the TAESD decodes {config.latent_channels} channels to {config.factor} pixels "
            f"a side, expected 4 and {_FACTOR}",
            "use the TAESD of Stable Diffusion, such as madebyollin/taesd",
            argument="taesd",
        )
    taesd_decoder(config, g)


# It has the inputs and outputs of the VAE's decoder.
TAESD = replace(
    COMPONENTS["vae_decoder"],
    name=TAESD_DECODER,
    model_class=AutoencoderTiny,
    build=lambda config: AutoencoderTiny.from_config(dict(config)),
    write=_write,
    parts=None,
    about=lambda model: {},
)
