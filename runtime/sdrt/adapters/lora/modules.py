"""Finds a model's module by the name that an adapter's file gives it: one flat table of all spellings.

kohya writes names with underscores for points, which cannot be undone without the model's own names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sdrt.adapters.change import Shape
from sdrt.adapters.lora.ldm_names import ldm_names

__all__ = ["Module", "ModuleNames"]

UNET = "unet"
# What programs write before a module's name, with underscores for points.
_PREFIXES: Mapping[str, tuple[str, ...]] = {
    UNET: ("lora_unet_", "unet_", "lycoris_", "diffusion_model_", "model_diffusion_model_", ""),
    "text_encoder": (
        *("lora_te_", "lora_te1_", "text_encoder_"),
        *("text_encoders_clip_l_transformer_", "text_encoders_clip_h_transformer_"),
    ),
    "text_encoder_2": ("lora_te2_", "text_encoder_2_", "text_encoders_clip_g_transformer_"),
}
_PEFT = "base_model_model_"
_TEXT = "text_model."
# diffusers before 0.20 called a text encoder's projections as it calls those of a U-Net.
_OLD_PROJECTIONS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


@dataclass(frozen=True)
class Module:
    """A module of a model, such as a Linear: its component, and its name in diffusers or transformers."""

    component: str
    name: str


class ModuleNames:
    """The modules of a model by all names that files have for them."""

    def __init__(self, shapes: Mapping[str, Mapping[str, Shape]]) -> None:
        self._table: dict[str, Module] = {}
        encoders = [component for component in shapes if component.startswith("text_encoder")]
        for component, parameters in shapes.items():
            names = list(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
            prefixes = _PREFIXES.get(component, (f"{component}_",))
            # A file of one text encoder alone has no prefix. Of two encoders, it would be either's.
            prefixes += ("",) if encoders == [component] else ()
            for spelled, name in _spellings(component, names):
                for prefix in prefixes:
                    self._table.setdefault(prefix + _flat(spelled), Module(component, name))

    def find(self, name: str) -> Module | None:
        """The module that a file calls `name`, or None."""
        return self._table.get(_flat(name).removeprefix(_PEFT))


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _spellings(component: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """All names of a component's modules, with the model's own."""
    for name in names:
        yield name, name
    for name in names:
        for other in _unet_names(name) if component == UNET else _text_names(name):
            yield other, name
    if component == UNET:
        for name, other in ldm_names(names).items():
            yield other, name


def _unet_names(name: str) -> Iterator[str]:
    if name.endswith(".to_out.0"):
        yield name.removesuffix(".0")


def _text_names(name: str) -> Iterator[str]:
    """transformers 5 has no `text_model.`"""
    head, _, last = name.rpartition(".")
    own = [name, f"{head}.{_OLD_PROJECTIONS[last]}"] if last in _OLD_PROJECTIONS else [name]
    for one in own:
        yield one
        yield one.removeprefix(_TEXT) if one.startswith(_TEXT) else _TEXT + one
