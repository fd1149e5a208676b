"""Find the row of the sampler table that a scheduler config means, and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError
from sdrt.schedulers.config import read_settings
from sdrt.schedulers.settings import Settings
from sdrt.schedulers.table import SAMPLERS, SamplerRow

__all__ = ["as_named", "row_of_settings", "rows_of_class", "settings_of_row"]


def settings_of_row(row: SamplerRow, config: Mapping[str, Any]) -> Settings:
    """The settings of the class of `row`, read from a config."""
    return read_settings(
        config,
        class_name=row.class_name,
        defaults=row.defaults,
        known=row.known_keys,
        synonyms=row.synonyms,
        allowed=row.allowed,
    )


def as_named(row: SamplerRow, settings: Settings) -> Settings:
    """The settings, with the algorithm and order that the sampler's name stands for instead of the config's."""
    changes: dict[str, Any] = {}
    if row.algorithm_type is not None:
        changes["algorithm_type"] = row.algorithm_type
    if row.orders and settings.solver_order not in row.orders:
        changes["solver_order"] = row.orders[-1]
    if row.solver_type is not None:
        changes["solver_type"] = row.solver_type
    if row.integrates_noise:
        # In diffusers too, these cannot end at a clean image.
        changes["final_sigmas_type"] = "sigma_min"
    return replace(settings, **changes)


def row_of_settings(rows: Sequence[SamplerRow], settings: Settings) -> SamplerRow:
    """The row that a config means, out of the rows of its class."""
    for row in rows:
        named = row.algorithm_type in (None, settings.algorithm_type)
        named = named and row.solver_type in (None, settings.solver_type)
        if named and (not row.orders or settings.solver_order in row.orders):
            return row
    found = f"algorithm_type {settings.algorithm_type} with solver_order {settings.solver_order}"
    raise UnsupportedModelError.advised(
        f"scheduler config ({rows[0].class_name}): {found} is not supported",
        "Change them in scheduler_config.json, or ask for another scheduler by name",
        joint=". ",
        component="scheduler",
    )


def rows_of_class(class_name: object) -> list[SamplerRow]:
    """The rows of a diffusers class that a config may name. Raises `UnsupportedModelError` if there are none."""
    rows = [row for row in SAMPLERS.values() if row.class_name == class_name and row.own_levels]
    if rows:
        return rows
    supported = ", ".join(dict.fromkeys(row.class_name for row in SAMPLERS.values() if row.own_levels))
    raise UnsupportedModelError(
        f"scheduler config: _class_name is {brief(class_name)}; supported: {supported}. "
        "Ask for a scheduler by name",
        component="scheduler",
        fits=supported,
    )
