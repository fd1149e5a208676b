"""The table of the families that sdrt can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.families.family import Family
from sdrt.families.stable_diffusion import STABLE_DIFFUSION

__all__ = ["FAMILIES", "family_of"]

FAMILIES: list[Family] = [STABLE_DIFFUSION]


def family_of(index: Mapping[str, Any]) -> Family | None:
    """Return the family whose pipeline class a `model_index.json` names, or None if no family has that class."""
    name = index.get("_class_name")
    if not isinstance(name, str):
        return None
    return next((family for family in FAMILIES if name in family.pipeline_classes), None)
