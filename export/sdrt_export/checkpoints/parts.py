"""One component of a model from a file of its own or from a section of a single file: its config and its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError
from sdrt_export.architectures.clip_text import ClipTextConfig
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.architectures.vae import VaeConfig
from sdrt_export.checkpoints.derived.clip import derived_clip, is_open_clip
from sdrt_export.checkpoints.derived.shapes import Shapes
from sdrt_export.checkpoints.derived.vae import derived_vae, is_diffusers_vae
from sdrt_export.checkpoints.keys.clip import open_clip_rows, transformers_rows
from sdrt_export.checkpoints.keys.extras import extra_of
from sdrt_export.checkpoints.keys.row import Row, Taken, taken
from sdrt_export.checkpoints.keys.unet import unet_rows
from sdrt_export.checkpoints.keys.vae import old_vae_rows, vae_rows
from sdrt_export.checkpoints.kinds import TextPart
from sdrt_export.tensors.lazy import MappedFile, Tensors

__all__ = ["Config", "Part", "Section", "class_of_config", "text_part", "unet_part", "vae_part"]

Config = dict[str, Any]
# Signs of quantised weights: whole numbers, and the factors of float8 and int8 in files of ComfyUI and others.
_WHOLE_NUMBERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"})
_FACTORS = (".scale_weight", ".weight_scale", ".scale_input", ".SCB", ".absmax", ".quant_map", ".comfy_quant")


def class_of_config(config: Mapping[str, Any]) -> str:
    """The class that diffusers or transformers wrote into a config. Empty if it names none."""
    named = config.get("architectures")
    found = config.get("_class_name") or (named[0] if isinstance(named, list) and named else "")
    return found if isinstance(found, str) else ""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A component: its config, its tensors by diffusers' or transformers' names, and where they are, for messages."""

    config: Config
    tensors: Tensors
    place: str

    def check_latents(self, unet: Config, model: str) -> None:
        """Check that this VAE has the latents of the U-Net of `model`. Raises `UnsupportedModelError`."""
        latents, wanted = self.config["latent_channels"], unet["out_channels"]
        if latents != wanted:
            raise UnsupportedModelError.expected(
                f"{self.place}: the VAE has {latents} latent channels",
                f"{wanted}, as the U-Net of {model} makes",
                component="vae",
            )


@dataclass(frozen=True, kw_only=True)
class Section:
    """The tensors of one component in a file: their names in it, and without the prefix."""

    file: MappedFile
    part: str
    names: Mapping[str, str]

    @classmethod
    def of(cls, file: MappedFile, part: str, prefixes: Iterable[str]) -> Section | None:
        """The tensors with the first of `prefixes` that the file has. None if it has none of them."""
        for prefix in prefixes:
            names = {name: name[len(prefix) :] for name in file.header.tensors if name.startswith(prefix)}
            if names:
                return cls(file=file, part=part, names=names)
        return None

    @property
    def shapes(self) -> Shapes:
        """The shapes by the names without the prefix."""
        tensors = self.file.header.tensors
        return Shapes(
            self.file.header.path, self.part, {own: tensors[full].shape for full, own in self.names.items()}
        )

    def taken_by(self, rows: Iterable[Row]) -> Part:
        """The tensors by diffusers' names, with no config yet.

        Raises:
            UnsupportedModelError: a tensor is quantised, or neither in the table nor a known extra.
        """
        self._check_numbers()
        found = taken(self.file, self.names, rows)
        self._check_left_over(found)
        return Part(config={}, tensors=Tensors(found.sources), place=f"{self.file.header.path} ({self.part})")

    def _check_numbers(self) -> None:
        for name, own in self.names.items():
            dtype = self.file.header.tensors[name].dtype
            if own.endswith((*_FACTORS, "scaled_fp8")) or (
                own.endswith(".weight") and dtype in _WHOLE_NUMBERS
            ):
                raise UnsupportedModelError.advised(
                    f"{self.file.header.path} is quantised ({brief(name)} is of the type {brief(dtype)})",
                    "use a checkpoint with floating-point weights; sdrt export --dtype int8 quantises by itself",
                    path=self.file.header.path,
                )

    def _check_left_over(self, found: Taken) -> None:
        unknown = [name for name in found.left_over if extra_of(name) is None]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            are = "are" if more else "is"
            raise self.shapes.refused(
                f"has the tensor {brief(unknown[0])}{more}, which {are} not part of its architecture",
                "a model without changes to its architecture",
            )


def _with(part: Part, config: Config) -> Part:
    return Part(config=config, tensors=part.tensors, place=part.place)


def unet_part(section: Section, config: Config) -> Part:
    """The U-Net."""
    return _with(section.taken_by(unet_rows(UNetConfig.of(config))), config)


def vae_part(section: Section, config: Config | None, *, given: Config) -> Part:
    """The VAE. Its config is derived if there is none; `given` has the values that the tensors do not show."""
    shapes = section.shapes
    config = {**derived_vae(shapes), **given} if config is None else config
    checked = VaeConfig.of(config)
    rows = old_vae_rows() if is_diffusers_vae(shapes) else vae_rows(checked)
    return _with(section.taken_by(rows), config)


def text_part(section: Section, config: Config | None, spec: TextPart) -> Part:
    """A text encoder. Its config is derived if there is none."""
    shapes = section.shapes
    if config is None:
        config = derived_clip(shapes, projected=spec.projected, drops_last=spec.drops_last)
    checked = ClipTextConfig.of(config, spec.part, projected=spec.projected)
    rows: Callable[..., Sequence[Row]] = open_clip_rows if is_open_clip(shapes) else transformers_rows
    part = section.taken_by(rows(checked.layers, projected=spec.projected))
    return _with(part, {**config, "vocab_size": checked.vocabulary})
