"""Refuses files that are no LoRA, or one for a model of another family, before their tensors are looked at."""

from __future__ import annotations

from collections.abc import Mapping

from sdrt.adapters.change import Shape
from sdrt.common.file_kind import LORA, SD1, SD2, SDXL, kind_of
from sdrt.common.safetensors_file import SafetensorsFile
from sdrt.errors import UnsupportedModelError
from sdrt.families import Family
from sdrt.families.stable_diffusion import STABLE_DIFFUSION

__all__ = ["check_family", "title_of"]

_WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}
_READS_TEXT = "attn2.to_k.weight"


def title_of(family: Family, shapes: Mapping[str, Mapping[str, Shape]]) -> str:
    """What messages call the model: by the width of its text embeddings, or by its family."""
    parameters = shapes.get(family.denoiser.component, {})
    width = next((shape[1] for name, shape in parameters.items() if name.endswith(_READS_TEXT)), 0)
    return _WIDTHS.get(width, family.title)


def check_family(file: SafetensorsFile, family: Family, shapes: Mapping[str, Mapping[str, Shape]]) -> None:
    """Check that a file is a LoRA for a model like this one, as far as its names and widths tell.

    Raises:
        UnsupportedModelError: it is not.
    """
    kind = kind_of(file)
    if kind is None:
        return
    title = title_of(family, shapes)
    if kind.what != LORA:
        raise UnsupportedModelError.expected(f"{file.path} is {kind}", f"a LoRA for {title}", path=file.path)
    if kind.base and kind.base not in _possible(family, title):
        raise UnsupportedModelError.expected(
            f"{file.path} is {kind}", f"one for {title}, as the model is", path=file.path
        )


def _possible(family: Family, title: str) -> tuple[str, ...]:
    if title in (SD1, SD2, SDXL):
        return (title,)
    return (SD1, SD2) if family.name == STABLE_DIFFUSION.name else (SDXL,)
