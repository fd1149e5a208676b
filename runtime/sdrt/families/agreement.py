"""Checks by their configs that the text encoders of a model belong to its denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.errors import IntegrityError
from sdrt.families.family import Family

__all__ = ["check_text_widths"]

Config = Mapping[str, Any]


def check_text_widths(family: Family, denoiser: Config, texts: Mapping[str, Config]) -> None:
    """Check that the denoiser reads texts as wide as the text encoders write them.

    That it sees as many latents as the VAE has is checked with the model's task.

    Args:
        family: the model's family.
        denoiser: the denoiser's config. With a list of widths, all blocks read the same.
        texts: the configs of all text encoders, by component.

    Raises:
        IntegrityError: it does not, because the parts are of different models.
    """
    wanted = denoiser.get(family.denoiser.embeds_width)
    if isinstance(wanted, (list, tuple)) and wanted:
        wanted = wanted[0]
    found = [texts[spec.component].get("hidden_size") for spec in family.text_encoders]
    # What is no number is refused where it is read.
    widths = [width for width in (wanted, *found) if type(width) is int]
    if len(widths) < 1 + len(found) or sum(widths[1:]) == wanted:
        return
    names = " and ".join(spec.component for spec in family.text_encoders)
    raise IntegrityError.advised(
        f"{family.denoiser.component} reads texts of width {wanted}, but {names} "
        f"{'writes' if len(found) == 1 else 'write'} {sum(widths[1:])}: they are of different models",
        f"use the {names} that came with the {family.denoiser.component}",
        joint="; ",
        component=family.denoiser.component,
    )
