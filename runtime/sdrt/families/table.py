"""The table of the families that sdrt can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.families.family import Family
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.families.stable_diffusion_xl import STABLE_DIFFUSION_XL, STABLE_DIFFUSION_XL_REFINER

__all__ = ["FAMILIES", "family_of"]

FAMILIES: list[Family] = [STABLE_DIFFUSION, STABLE_DIFFUSION_XL_REFINER, STABLE_DIFFUSION_XL]
"""If a folder fits several families, the first one counts."""


def family_of(index: Mapping[str, Any]) -> Family | None:
    """Return the family whose pipeline class a `model_index.json` names, or None if no family has that class.

    If several families have that class, the components that the index lacks decide, as for SDXL's refiner.
    """
    name = index.get("_class_name")
    if not isinstance(name, str):
        return None
    fitting = (family for family in FAMILIES if name in family.pipeline_classes)
    return next((one for one in fitting if not any(map(_is_there, map(index.get, one.lacks)))), None)


def _is_there(entry: object) -> bool:
    return entry not in (None, [None, None])
