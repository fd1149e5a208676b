"""The families that sdrt can run, a row each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.families.family import Family
from sdrt.families.stable_diffusion import STABLE_DIFFUSION

__all__ = ["FAMILIES", "family_of"]

FAMILIES: list[Family] = [STABLE_DIFFUSION]


def family_of(index: Mapping[str, Any]) -> Family | None:
    """The family whose pipeline class a `model_index.json` names; None for a class of no family."""
    name = index.get("_class_name")
    if not isinstance(name, str):
        return None
    return next((family for family in FAMILIES if name in family.pipeline_classes), None)
