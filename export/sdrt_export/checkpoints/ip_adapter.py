"""Files of IP-Adapters in the layout of h94's repository, for Stable Diffusion 1 and SDXL: base and plus.

`image_proj.…` is the projection, and `ip_adapter.N.to_k_ip.weight` and `ip_adapter.N.to_v_ip.weight` are the keys and
values of the U-Net's cross-attentions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.common.file_kind import PICKLES, kind_of
from sdrt.common.messages import brief
from sdrt.errors import IntegrityError, ModelNotFoundError, UnsupportedModelError
from sdrt_export.architectures.image_projection import ProjectionConfig
from sdrt_export.architectures.image_prompts import image_prompt_layers
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.checkpoints.keys.row import Row, half, taken
from sdrt_export.checkpoints.left_over import check_all_known
from sdrt_export.checkpoints.weight_files import check_numbers
from sdrt_export.tensors.array import Shape
from sdrt_export.tensors.finite import FiniteTensors, check_finite
from sdrt_export.tensors.lazy import MappedFile, Source, Tensors

__all__ = ["IpAdapter", "open_ip_adapter"]

_FITS = "an IP-Adapter of the kind base or plus, as .safetensors"
_PROJECTION, _ATTENTION = "image_proj.", "ip_adapter."
_HEAD = 64
_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class IpAdapter:
    """An IP-Adapter that fits a U-Net.

    Attributes:
        path: its file.
        projection: the shape of its projection.
        tensors: those of the projection, by the names of diffusers' classes.
        layers: for each cross-attention of the U-Net, by its name, the tensors of the key's and the value's projection.
    """

    path: Path
    projection: ProjectionConfig
    tensors: Tensors
    layers: Mapping[str, tuple[Source, Source]]

    def in_unet(self, number: int) -> dict[str, Source]:
        """The tensors of the cross-attentions, by the names that they have in the U-Net as the adapter `number`."""
        return {
            f"{layer}.processor.to_{letter}_ip.{number}.weight": source
            for layer, pair in self.layers.items()
            for letter, source in zip("kv", pair, strict=True)
        }


def open_ip_adapter(path: Path, unet: Mapping[str, Any]) -> IpAdapter:
    """Open an IP-Adapter for a U-Net with this config.

    Raises:
        ModelNotFoundError: there is no such file, or it is no IP-Adapter.
        UnsupportedModelError: it is a pickle, of another kind such as FaceID, damaged, or for another model.
        IntegrityError: a tensor is missing, has another shape, or is not finite.
    """
    file, config = _open(path), UNetConfig.of(unet)
    names = {
        name: name.removeprefix(_PROJECTION) for name in file.header.tensors if name.startswith(_PROJECTION)
    }
    attentions = [name for name in file.header.tensors if name.startswith(_ATTENTION)]
    _refuse_other_kinds(path, [*names.values(), *attentions])
    check_all_known(file, {*names, *attentions}, "an IP-Adapter")
    tensors = _projection(file, names)
    shape = _shape(path, tensors)
    if shape.width != config.context_width:
        raise UnsupportedModelError.expected(
            f"{path} makes image tokens {shape.width} wide",
            f"{config.context_width}, as this model's U-Net takes: the adapter is for another family of models",
            path=path,
        )
    made = IpAdapter(path=path, projection=shape, tensors=tensors, layers=_layers(file, config))
    _check_finite(made)
    return made


def _open(path: Path) -> MappedFile:
    if path.suffix.lower() in PICKLES:
        raise UnsupportedModelError.advised(
            f"{path} is a pickle, which runs code when it is read",
            "give the adapter's .safetensors file, which h94/IP-Adapter has beside it",
            path=path,
        )
    try:
        file = MappedFile.open(path)
    except OSError as error:
        raise ModelNotFoundError.expected(
            f"{path} cannot be read ({error.strerror or error})", _FITS, argument="ip_adapter", path=path
        ) from None
    if not any(name.startswith(_PROJECTION) for name in file.header.tensors):
        kind = kind_of(file.header) or "a safetensors file of an unknown kind"
        raise ModelNotFoundError.expected(f"{path} is {kind}", _FITS, argument="ip_adapter", path=path)
    check_numbers([path])
    return file


def _refuse_other_kinds(path: Path, names: Sequence[str]) -> None:
    """Refuse the adapters that read something else than an image, or all of CLIP's last tokens."""
    kind = ""
    if any(name.startswith("perceiver_resampler.") for name in names):
        kind = "FaceID plus"
    elif "proj.3.weight" in names:
        kind = "full face"
    elif "proj.2.weight" in names or any("lora" in name for name in names):
        kind = "FaceID"
    if kind:
        raise UnsupportedModelError.expected(f"{path} is an IP-Adapter of the kind {kind}", _FITS, path=path)


def _projection(file: MappedFile, names: Mapping[str, str]) -> Tensors:
    """The projection's tensors by diffusers' names."""
    found = taken(file, names, _rows(names.values()))
    if found.left_over:
        raise UnsupportedModelError.expected(
            f"{file.header.path} has the tensor {brief(found.left_over[0])}", _FITS, path=file.header.path
        )
    return Tensors(found.sources)


def _rows(names: Any) -> list[Row]:
    """The table of names. Resamplers have those of h94's files, or diffusers' own."""
    rows = [Row("image_embeds", "proj"), Row("norm", "norm")]
    rows += [Row(name, name) for name in ("latents", "proj_in", "proj_out", "norm_out")]
    for index in sorted({int(match[1]) for name in names if (match := _LAYER.match(name))}):
        path = f"layers.{index}"
        rows += [
            Row(f"{path}.ln0", f"{path}.0.norm1"),
            Row(f"{path}.ln1", f"{path}.0.norm2"),
            *(row for own in ("0", "attn") for row in _attention_rows(path, own)),
            Row(f"{path}.ff.0", f"{path}.1.0"),
            Row(f"{path}.ff.1.net.0.proj", f"{path}.1.1"),
            Row(f"{path}.ff.1.net.2", f"{path}.1.3"),
            *(Row(f"{path}.{own}", f"{path}.{own}") for own in ("ln0", "ln1", "ff")),
        ]
    return rows


def _attention_rows(path: str, own: str) -> list[Row]:
    """The rows of a resampler's attention, which its file calls `own`."""
    made, given = f"{path}.attn", f"{path}.{own}"
    return [
        *(Row(f"{made}.{name}", f"{given}.{name}") for name in ("to_q", "to_k", "to_v", "to_out.0")),
        Row(f"{made}.to_k", f"{given}.to_kv", half(0)),
        Row(f"{made}.to_v", f"{given}.to_kv", half(1)),
        Row(f"{made}.to_out.0", f"{given}.to_out"),
    ]


def _shape(path: Path, tensors: Tensors) -> ProjectionConfig:
    """The shape that the tensors show. Whether all of them fit it is checked with the graph."""

    def of(name: str, rank: int) -> Shape:
        if name not in tensors:
            raise IntegrityError.advised(f"{path} lacks {_PROJECTION}{name}", "download it again", path=path)
        shape = tensors.shape(name)
        if len(shape) != rank or 0 in shape:
            raise IntegrityError.expected(
                f"{path}: {_PROJECTION}{name} is of shape {list(shape)}",
                f"{rank} dimension{'s' * (rank > 1)}, none of them empty",
                path=path,
            )
        return shape

    if "latents" not in tensors:
        (rows, embeds), (width,) = of("image_embeds.weight", 2), of("norm.weight", 1)
        if rows % width:
            raise IntegrityError.expected(
                f"{path}: {_PROJECTION}proj.weight has {rows} rows", f"a multiple of {width}", path=path
            )
        return ProjectionConfig(embeds_width=embeds, tokens=rows // width, width=width)
    (_, tokens, hidden), (width, _) = of("latents", 3), of("proj_out.weight", 2)
    layers = {int(match[1]) for name in tensors if (match := _LAYER.match(name))}
    inside = of("layers.0.attn.to_q.weight", 2)[0]
    if layers != set(range(len(layers))) or inside % _HEAD:
        raise IntegrityError.expected(
            f"{path}: its resampler has {len(layers)} layers with queries {inside} wide",
            f"layers without gaps, with queries of a multiple of {_HEAD}",
            path=path,
        )
    return ProjectionConfig(
        embeds_width=of("proj_in.weight", 2)[1],
        tokens=tokens,
        width=width,
        layers=len(layers),
        hidden=hidden,
        heads=inside // _HEAD,
        inner=of("layers.0.ff.1.net.0.proj.weight", 2)[0],
    )


def _layers(file: MappedFile, config: UNetConfig) -> dict[str, tuple[Source, Source]]:
    """The tensors of each cross-attention. Files count every attention, so that these have the odd numbers."""
    layers, header = image_prompt_layers(config), file.header
    wanted = {
        f"{_ATTENTION}{2 * index + 1}.to_{letter}_ip.weight"
        for index in range(len(layers))
        for letter in "kv"
    }
    own = {name for name in header.tensors if name.startswith(_ATTENTION)}
    if own != wanted:
        odd = sorted(own ^ wanted)[0]
        problem = f"{brief(odd)} is {'left over' if odd in own else 'missing'}"
        raise UnsupportedModelError.expected(
            f"{header.path} has {len(own) // 2} cross-attentions ({problem})",
            f"{len(layers)}, as this model's U-Net has: the adapter is for another family of models",
            path=header.path,
        )
    for index, channels in enumerate(layers.values()):
        for letter in "kv":
            name = f"{_ATTENTION}{2 * index + 1}.to_{letter}_ip.weight"
            _check_shape(file, name, (channels, config.context_width))
    return {
        layer: (
            _source(file, f"{_ATTENTION}{2 * index + 1}.to_k_ip.weight"),
            _source(file, f"{_ATTENTION}{2 * index + 1}.to_v_ip.weight"),
        )
        for index, layer in enumerate(layers)
    }


def _check_shape(file: MappedFile, name: str, wanted: Shape) -> None:
    found, path = file.header.tensors[name].shape, file.header.path
    if found != wanted:
        raise UnsupportedModelError.expected(
            f"{path}: {name} is of shape {list(found)}",
            f"{list(wanted)}, as this model's U-Net has: the adapter is damaged, or for another model",
            path=path,
        )


def _source(file: MappedFile, name: str) -> Source:
    return Source(file=file, name=name, shape=file.header.tensors[name].shape)


def _check_finite(adapter: IpAdapter) -> None:
    """Raise `IntegrityError` for a tensor with NaN or infinity."""
    both: dict[str, Source] = {**adapter.tensors.sources, **adapter.in_unet(0)}
    check_finite(FiniteTensors(str(adapter.path), Tensors(both)))
