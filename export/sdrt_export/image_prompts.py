"""IP-Adapters that are given beside a model, as components of it: their projections, and CLIP's vision encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.common.messages import naming
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.adapter_place import ip_adapter_place
from sdrt.model_folder.folder import exists, expand
from sdrt.model_folder.graph_kind import ImageInput, MoreInputs
from sdrt.model_folder.hub_file import HubFile, download_file
from sdrt.model_folder.model import IMAGE_ENCODER, IP_ADAPTER, ip_adapter_name
from sdrt_export.architectures.image_projection import ProjectionConfig
from sdrt_export.checkpoints.image_encoder import open_image_encoder
from sdrt_export.checkpoints.ip_adapter import IpAdapter, open_ip_adapter
from sdrt_export.checkpoints.usage import check_usage
from sdrt_export.component_graphs import graph_of
from sdrt_export.components.image_encoder import IMAGE_ENCODER as ENCODER
from sdrt_export.components.ip_adapter import projection_component, projection_values
from sdrt_export.piece import Piece
from sdrt_export.targets import Target
from sdrt_export.tensors.array import Array
from sdrt_export.tensors.finite import FiniteTensors
from sdrt_export.tensors.lazy import Tensors

__all__ = ["ImagePrompts", "load_image_prompts"]

_FITS_ENCODER = "a folder of transformers' CLIPVisionModelWithProjection, or its .safetensors file"


@dataclass(frozen=True, kw_only=True)
class ImagePrompts:
    """What makes a model see images.

    Attributes:
        adapters: the IP-Adapters.
        projections: their projections.
        encoder: CLIP's vision encoder. None if the model has it already.
    """

    adapters: tuple[IpAdapter, ...]
    projections: tuple[Piece, ...]
    encoder: Piece | None

    @property
    def pieces(self) -> dict[str, Piece]:
        """All components, by name."""
        given = [*([] if self.encoder is None else [self.encoder]), *self.projections]
        return {piece.component.name: piece for piece in given}

    @property
    def tensors(self) -> Mapping[str, Array]:
        """The tensors of the U-Net's cross-attentions, by the names that they have there."""
        return Tensors(
            {
                name: source
                for number, one in enumerate(self.adapters)
                for name, source in one.in_unet(number).items()
            }
        )

    @property
    def inputs(self) -> MoreInputs:
        """The further inputs of the U-Net's graph that folders store: one for each adapter."""
        widths = [one.projection.width for one in self.adapters]
        return MoreInputs(images=tuple(ImageInput(adapter=n, width=width) for n, width in enumerate(widths)))

    @property
    def files(self) -> tuple[str, ...]:
        """What identifies the weights of each adapter."""
        return tuple(_identity(one.path) for one in self.adapters)


def load_image_prompts(
    given: Sequence[str | Path],
    image_encoder: str | Path | None,
    *,
    unet: Mapping[str, Any],
    model: str,
    folder: Path,
    encoder_config: Mapping[str, Any] | None,
    target: Target,
    access: Mapping[str, Any],
) -> ImagePrompts:
    """Open IP-Adapters and what sees their images, and check that they fit a model and each other.

    Args:
        given: for each adapter, a file, or where it is on the hub.
        image_encoder: a file or folder. By default that of the model, or the folder beside the first adapter.
        unet: the config of the model's U-Net.
        model: the model's name, for messages.
        folder: where the model is, which may contain an image encoder.
        encoder_config: the config of an image encoder that the model has as a component already.
        target: how layers are written.
        access: huggingface_hub's options.

    Raises:
        ModelNotFoundError: there is no such file, or it is none of these.
        UnsupportedModelError: it is for another model, or not supported.
        IntegrityError: it is damaged.
    """
    with naming(IP_ADAPTER):
        paths = [_local(one, access) for one in given]
        adapters = tuple(open_ip_adapter(path, unet) for path in paths)
        projections = tuple(_projection(index, one, target) for index, one in enumerate(adapters))
    encoder = None
    if image_encoder is not None or encoder_config is None:
        with naming(IMAGE_ENCODER):
            encoder = _encoder(_encoder_place(image_encoder, folder, paths, model))
        encoder_config = encoder.config
    for adapter in adapters:
        _check_encoder(adapter, encoder_config)
    return ImagePrompts(adapters=adapters, projections=projections, encoder=encoder)


def _local(source: str | Path, access: Mapping[str, Any]) -> Path:
    place = ip_adapter_place(source)
    return download_file(place, **access)[0] if isinstance(place, HubFile) else place


def _identity(path: Path) -> str:
    state = path.stat()
    return f"{path.resolve()}:{state.st_size}:{state.st_mtime_ns}"


def _projection(index: int, adapter: IpAdapter, target: Target) -> Piece:
    piece = Piece(
        component=projection_component(ip_adapter_name(index), adapter.path.stem),
        place=str(adapter.path),
        config=dict(projection_values(adapter.projection)),
        tensors=FiniteTensors(str(adapter.path), adapter.tensors),
    )
    graph = graph_of(piece.component, piece.config, target, half=False)
    check_usage(piece.place, [piece.component], [graph.sources], piece.tensors)
    return piece


def _encoder_place(given: str | Path | None, folder: Path, adapters: Sequence[Path], model: str) -> Path:
    """Where the image encoder is: where the user says, in the checkpoint, or beside the first adapter."""
    if given is not None:
        place = expand(given, IMAGE_ENCODER, _FITS_ENCODER)
        if not exists(place):
            raise ModelNotFoundError.expected(
                f"there is no {place}", _FITS_ENCODER, argument=IMAGE_ENCODER, path=place
            )
        return place
    for place in (folder / IMAGE_ENCODER, adapters[0].parent / IMAGE_ENCODER):
        if (place / "config.json").is_file():
            return place
    raise ModelNotFoundError.advised(
        f"there is no image encoder for {adapters[0]}: {model} has none, and neither has the adapter's folder",
        "give one with image_encoder=… (--image-encoder FOLDER), such as models/image_encoder of h94/IP-Adapter",
        argument=IMAGE_ENCODER,
        path=adapters[0],
    )


def _encoder(place: Path) -> Piece:
    part = open_image_encoder(place)
    return Piece(
        component=ENCODER,
        place=part.place,
        config=part.config,
        tensors=FiniteTensors(part.place, part.tensors),
    )


def _check_encoder(adapter: IpAdapter, config: Mapping[str, Any]) -> None:
    """Check that an adapter reads what the encoder gives. Raises `UnsupportedModelError`."""
    wanted: ProjectionConfig = adapter.projection
    key, default = ("hidden_size", 768) if wanted.is_plus else ("projection_dim", 512)
    found = config.get(key, default)
    if found != wanted.embeds_width:
        raise UnsupportedModelError.expected(
            f"the image encoder has {key} {found}",
            f"{wanted.embeds_width}, as {adapter.path} reads: give the encoder that the adapter was trained with "
            "(--image-encoder)",
            path=adapter.path,
            argument=IMAGE_ENCODER,
        )
