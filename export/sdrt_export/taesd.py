"""TAESD, a small decoder that imitates the VAE's, for previews (https://github.com/madebyollin/taesd)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdrt.common.messages import naming
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.folder import TAESD_DECODER, exists, expand
from sdrt.model_folder.manifest import read_downloaded
from sdrt_export.architectures.taesd import TaesdConfig, taesd_decoder
from sdrt_export.checkpoints.defaults import completed
from sdrt_export.checkpoints.folder import read_tensors
from sdrt_export.checkpoints.weight_files import find_weights
from sdrt_export.components import COMPONENTS
from sdrt_export.components.component import Config, Inputs, noise
from sdrt_export.graphs.layers import Layers
from sdrt_export.piece import Piece
from sdrt_export.tensors.finite import FiniteTensors

__all__ = ["TAESD", "load_taesd"]

_FACTOR = 8
_FITS = "a folder or hub id of diffusers' AutoencoderTiny, such as madebyollin/taesd"


def load_taesd(source: str | Path, hub_options: Mapping[str, Any]) -> Piece:
    """Open diffusers' `AutoencoderTiny` in a folder or on the hub, such as ``madebyollin/taesd``.

    Raises:
        ModelNotFoundError: it does not exist, or has no weights.
        UnsupportedModelError: it is another kind of model.
        IntegrityError: its weights cannot be read.
    """
    folder = expand(source, "taesd", _FITS)
    if not exists(folder):
        from sdrt.model_folder import hub

        with naming("taesd"):
            folder = hub.download_component(hub.check_id_of(source, "taesd", _FITS), **hub_options)
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError.expected(f"--taesd {source} has no config.json", _FITS, argument="taesd")
    config = read_downloaded(folder / "config.json")
    found = config.get("_class_name")
    if found != TAESD.class_name:
        raise UnsupportedModelError.expected(
            f"--taesd {source} is of class {found}",
            "AutoencoderTiny, such as madebyollin/taesd",
            argument="taesd",
        )
    place = f"--taesd {source}"
    tensors = read_tensors(find_weights(folder, TAESD.library).files, TAESD.class_name)
    return Piece(
        component=TAESD,
        place=place,
        config=completed(TAESD.class_name, config),
        tensors=FiniteTensors(place, tensors),
    )


def _write(values: Config, g: Layers, hosted: bool) -> None:
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


def _examples(values: Config, size: int) -> Inputs:
    batch, height, width = [(2, 8, 6), (1, 5, 7), (2, 6, 4)][size]
    return {"latent_sample": noise(batch, TaesdConfig.of(values).latent_channels, height, width, seed=size)}


# It has the inputs and outputs of the VAE's decoder.
TAESD = replace(
    COMPONENTS["vae_decoder"],
    name=TAESD_DECODER,
    class_name="AutoencoderTiny",
    write=_write,
    examples=_examples,
    parts=None,
    unused=("encoder.",),
    about=lambda config, tensors: {},
)
