"""Checks that the configs of a model's text encoders fit its denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.errors import IntegrityError
from sdrt.families.family import Family

__all__ = ["check_text_widths"]

Config = Mapping[str, Any]


def check_text_widths(family: Family, denoiser: Config, texts: Mapping[str, Config]) -> None:
    """Check that the text encoders' embeddings have the width that the denoiser reads.

    The check of the model's task compares the number of latent channels with the VAE's.

    Args:
        family: the model's family.
        denoiser: the denoiser's config. If it has a list of widths, the first one counts.
        texts: the configs of all text encoders, by component.

    Raises:
        IntegrityError: they have another width, because the parts are of different models.
    """
    wanted = denoiser.get(family.denoiser.embeds_width)
    if isinstance(wanted, (list, tuple)) and wanted:
        wanted = wanted[0]
    found = [texts[spec.component].get("hidden_size") for spec in family.text_encoders]
    # Another check refuses values that are no numbers.
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
