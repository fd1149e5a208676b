"""The ControlNets and T2I-Adapters that are given beside a checkpoint, as components of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrt.common.messages import naming
from sdrt.families import Family
from sdrt.model_folder.adapter_place import controlnet_place
from sdrt.model_folder.folder import tail
from sdrt.model_folder.graph_kind import MoreInputs
from sdrt.model_folder.hub_file import HubFile, download_file
from sdrt.model_folder.model import CONTROLNET, controlnet_name
from sdrt_export.architectures.vae import VaeConfig
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.config_errors import naming_config
from sdrt_export.checkpoints.controlnet import check_fits, open_controlnet_part
from sdrt_export.checkpoints.parts import Part, class_of_config
from sdrt_export.checkpoints.t2i_adapter import T2I_ADAPTER
from sdrt_export.checkpoints.usage import check_usage
from sdrt_export.component_graphs import graph_of
from sdrt_export.components.controlnet import controlnet_component, t2i_adapter_component
from sdrt_export.piece import Piece
from sdrt_export.targets import Target
from sdrt_export.tensors.finite import FiniteTensors, check_finite

__all__ = ["control_inputs", "controlnets_of", "load_controlnets"]


def control_inputs(pieces: Iterable[Piece]) -> MoreInputs:
    """What the U-Net takes from the ControlNets and T2I-Adapters among `pieces`."""
    own = [one.component for one in pieces if one.component.name.startswith(CONTROLNET)]
    adapters = [one for one in own if one.class_name == T2I_ADAPTER]
    return MoreInputs(residuals=len(own) > len(adapters), features=bool(adapters))


def controlnets_of(
    given: Sequence[str | Path], checkpoint: Checkpoint, target: Target, access: Mapping[str, Any]
) -> list[Piece]:
    """The ControlNets `given` beside a checkpoint. See `load_controlnets`."""
    return load_controlnets(
        given,
        family=checkpoint.family,
        unet=checkpoint.config(checkpoint.family.denoiser.component),
        vae=checkpoint.config(checkpoint.family.vae.checkpoint),
        model=checkpoint.name,
        target=target,
        access=access,
    )


def load_controlnets(
    given: Sequence[str | Path],
    *,
    family: Family,
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    model: str,
    target: Target,
    access: Mapping[str, Any],
) -> list[Piece]:
    """Open ControlNets and T2I-Adapters, download those on the hub, and check that they fit a model.

    Args:
        given: for each, a file, a folder, a hub id, or a file on the hub.
        family: the model's family.
        unet, vae: the configs of the model's U-Net and VAE.
        model: the model's name, for messages.
        target: how layers are written.
        access: huggingface_hub's options.

    Raises:
        ModelNotFoundError: there is no such file, or it is no ControlNet.
        UnsupportedModelError: it is for another model, or not supported.
        IntegrityError: it is damaged.
    """
    latents = VaeConfig.of(vae)
    pieces = []
    for index, source in enumerate(given):
        with naming(CONTROLNET):
            path = _local(source, access)
            with naming_config(path, CONTROLNET):
                part = open_controlnet_part(path, unet)
            with naming_config(Path(part.place), CONTROLNET):
                check_fits(part, unet, model, channels=latents.latent_channels, factor=latents.factor)
                piece = _piece(controlnet_name(index), _title(source, path), part)
                _check_tensors(piece, target)
                if class_of_config(part.config) == T2I_ADAPTER:
                    # Infinity can vanish in it, and it is small.
                    check_finite(piece.tensors)
        pieces.append(piece)
    return pieces


def _piece(name: str, title: str, part: Part) -> Piece:
    """A ControlNet or T2I-Adapter as the component `name`."""
    is_adapter = class_of_config(part.config) == T2I_ADAPTER
    make = t2i_adapter_component if is_adapter else controlnet_component
    return Piece(
        component=make(name, title),
        place=part.place,
        config=part.config,
        tensors=FiniteTensors(part.place, part.tensors),
    )


def _title(source: str | Path, path: Path) -> str:
    """The name of a file without its suffix, as A1111 has it, of a folder, or of a hub id."""
    name = tail(str(source))
    return Path(name).stem if path.is_file() else name


def _local(source: str | Path, access: Mapping[str, Any]) -> Path:
    place = controlnet_place(source)
    if isinstance(place, HubFile):
        return download_file(place, **access)[0]
    if isinstance(place, Path):
        return place
    from sdrt.model_folder import hub

    return hub.download_component(place, **access)


def _check_tensors(piece: Piece, target: Target) -> None:
    """Check that the graph uses every tensor of the file, with its shape."""
    graph = graph_of(piece.component, piece.config, target, half=False)
    check_usage(piece.place, [piece.component], [graph.sources], piece.tensors)
