"""TAESD, a small decoder that imitates the VAE's, for previews (https://github.com/madebyollin/taesd)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny
from torch import Tensor, nn

from sdrt.errors import ExportError, ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.folder import TAESD_DECODER, exists, expand
from sdrt.model_folder.manifest import read_json
from sdrt_export.components import COMPONENTS

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


def _check(model: Any) -> None:
    """Raise UnsupportedModelError unless latents are like Stable Diffusion's, of eight pixels a side."""
    upsamplings = len(model.config.decoder_block_out_channels) - 1
    if model.config.latent_channels != 4 or 2**upsamplings != _FACTOR:
        raise UnsupportedModelError.advised(
            f"the TAESD decodes {model.config.latent_channels} channels to {2**upsamplings} pixels "
            f"a side, expected 4 and {_FACTOR}",
            "use the TAESD of Stable Diffusion, such as madebyollin/taesd",
            argument="taesd",
        )


def _decode(model: Any, latent_sample: Tensor) -> Tensor:
    image: Tensor = model.decoder(latent_sample)
    return image


# It has the inputs and outputs of the VAE's decoder.
TAESD = replace(
    COMPONENTS["vae_decoder"],
    name=TAESD_DECODER,
    model_class=AutoencoderTiny,
    build=lambda config: AutoencoderTiny.from_config(dict(config)),
    forward=lambda target: _decode,
    check=_check,
    about=lambda model: {},
    # None, because it is traced module by module.
    blocks=None,
)
