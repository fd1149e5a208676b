"""What other programs call schedulers in the metadata of their images, and what ours are called for them.

A1111 writes a "Sampler" and, since 1.9, a "Schedule type". Before 1.9 a sampler's name ended in its schedule, and one
without was Uniform. Since then `Automatic`, or no schedule type at all, is a default of the sampler
(`modules/sd_samplers_kdiffusion.py` in A1111 and Forge).
"""

from __future__ import annotations

import re

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.schedulers.resolve import split_name, unknown_scheduler
from sdrt.schedulers.scheduler import Scheduler
from sdrt.schedulers.table import SPACING_LABELS, SPACING_WORDS, SamplerRow, plain_name

__all__ = [
    "automatic_spacing",
    "schedule_type_of",
    "scheduler_of_a1111",
    "scheduler_of_comfyui",
    "version_of_a1111",
]

_AUTOMATIC, _UNIFORM = "automatic", "uniform"
_NAMELESS_DEFAULT = "DPM++ 2M"
"""The sampler that A1111 takes if a text names none."""
_FIRST_WITH_DEFAULTS = (1, 9)
_SD_NEXT_OWN = "default"
"""SD.Next's name for the scheduler of the model."""

# What A1111 has nearest to a spacing that it does not have. Without a type it would take the sampler's default.
_NEAREST = {
    "leading": "DDIM",
    "trailing": "Simple",
    "ays": "Align Your Steps",
    "lu": "Exponential",
    "beta_timesteps": "Beta",
    "linear_quadratic": "Normal",
}
_COMFYUI_SCHEDULERS = {"beta": "beta_timesteps"}


def scheduler_of_a1111(
    sampler: str | None, schedule_type: str | None = None, version: str | None = None
) -> str | None:
    """Our name for a scheduler in A1111's, Forge's or SD.Next's metadata, or in ours, such as "DPM++ 2M Karras".

    Args:
        sampler: the text of "Sampler" or "Hires sampler". A schedule that it ends in counts, as in A1111, more than
            `schedule_type`.
        schedule_type: the text of "Schedule type" or "Hires schedule type".
        version: the text of "Version".

    Returns:
        A name for `resolve_scheduler`; None for the model's own scheduler.

    Raises:
        RequestError: the sampler or the schedule type is unknown.
    """
    if sampler is None and schedule_type is None:
        return None
    name = (sampler or _NAMELESS_DEFAULT).strip()
    if plain_name(name) == _SD_NEXT_OWN:
        return None
    row, named = split_name(name)
    if row is None:
        raise unknown_scheduler(name)
    word = named or plain_name(schedule_type or "")
    if word and word not in SPACING_WORDS:
        known = ", ".join(("Automatic", "Uniform", *SPACING_LABELS.values()))
        raise RequestError.expected(
            f"schedule type {brief(schedule_type)} is unknown", f"one of {known}", argument="scheduler"
        )
    if not row.spacings:
        return _without_schedule(row, word)
    if word in ("", _AUTOMATIC) or (_has_own_levels(row) and not _is_ours(version)):
        spacing = automatic_spacing(row.name, version)
    else:
        spacing = row.spacing_named(word)
    return f"{row.display_name} {SPACING_LABELS.get(spacing, spacing)}" if spacing else row.display_name


def automatic_spacing(sampler: str, version: str | None = None) -> str | None:
    """The spacing of a sampler whose text has no schedule type, or Automatic, in metadata of a version of A1111.

    None if the sampler is unknown, has its own levels, or if the text says its schedule or sdrt wrote it.
    """
    row, named = split_name(sampler)
    if row is None or not row.spacings or named not in (None, _AUTOMATIC) or _is_ours(version):
        return None
    if version_of_a1111(version) < _FIRST_WITH_DEFAULTS and not _has_own_levels(row):
        return row.spacing_named(_UNIFORM)
    return row.spacing_named(_AUTOMATIC)


def _has_own_levels(row: SamplerRow) -> bool:
    """Whether it is A1111's DDIM, PLMS or UniPC, which do not look at the schedule type."""
    return row.automatic not in (None, *SPACING_LABELS)


def _is_ours(version: str | None) -> bool:
    return (version or "").startswith("sdrt")


def scheduler_of_comfyui(sampler_name: str, scheduler: str | None = None) -> str:
    """Our name for the `sampler_name` and `scheduler` of a KSampler in ComfyUI's graphs.

    Raises:
        RequestError: one of them is unknown.
    """
    # ComfyUI's ddim is Euler on the levels of the scheduler.
    row, _ = split_name("euler" if plain_name(sampler_name) == "ddim" else sampler_name)
    if row is None:
        raise unknown_scheduler(sampler_name)
    if scheduler is None:
        return row.display_name
    if not row.spacings:
        return _without_schedule(row, plain_name(scheduler))
    spacing = _COMFYUI_SCHEDULERS.get(scheduler.strip().lower(), scheduler)
    if plain_name(spacing) not in SPACING_WORDS:
        raise RequestError.expected(
            f"scheduler {brief(scheduler)} of ComfyUI is unknown", f"one of {', '.join(SPACING_LABELS)}"
        )
    return f"{row.display_name} {spacing}"


def schedule_type_of(scheduler: Scheduler) -> tuple[str | None, bool]:
    """The "Schedule type" that makes A1111 run a scheduler's levels, and whether it says all about the spacing.

    None where A1111's sampler has its own levels. Where A1111 has no such levels, the text is the nearest.
    """
    row, spacing = scheduler.sampler, scheduler.spacing
    if not row.spacings or "karras" not in row.spacings or row.is_for_edm or row.is_for_flow:
        return None, False
    if spacing == row.spacing_named(_UNIFORM) == "linspace":
        return "Uniform", True
    exact = SPACING_LABELS.get(spacing)
    nearest = _NEAREST.get(spacing, "SGM Uniform")
    return exact or nearest, exact is not None


def _without_schedule(row: SamplerRow, word: str) -> str:
    if row.class_name and word not in ("", _AUTOMATIC):
        raise RequestError.advised(
            f"scheduler {row.display_name!r} has its own noise levels, and the image was made with others",
            "choose another with --scheduler",
            argument="scheduler",
        )
    # A1111's DPM fast and DPM adaptive do not look at the type.
    return row.display_name


def version_of_a1111(text: str | None) -> tuple[int, int]:
    """The major and minor version of A1111, which Forge's versions contain too; a new one if there is none."""
    found = re.search(r"(?:^|v)(\d+)\.(\d+)", text or "")
    return (int(found[1]), int(found[2])) if found else _FIRST_WITH_DEFAULTS
