"""All samplers, by name. To add a sampler, add a row to one of these modules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sdrt.schedulers.table.consistency import CONSISTENCY
from sdrt.schedulers.table.ddpm import DDPM
from sdrt.schedulers.table.dpm_solver import DPM_SOLVER
from sdrt.schedulers.table.edm import EDM
from sdrt.schedulers.table.flow import FLOW
from sdrt.schedulers.table.k_diffusion import K_DIFFUSION
from sdrt.schedulers.table.row import SPACING_WORDS, SamplerRow, plain_name
from sdrt.schedulers.table.spacings import SPACING_LABELS, SPACINGS

__all__ = ["SAMPLERS", "SPACINGS", "SPACING_LABELS", "SPACING_WORDS", "SamplerRow", "plain_name"]

_ROWS = (*K_DIFFUSION, *DDPM, *DPM_SOLVER, *CONSISTENCY, *EDM, *FLOW)

SAMPLERS: Mapping[str, SamplerRow] = MappingProxyType({row.name: row for row in _ROWS})
