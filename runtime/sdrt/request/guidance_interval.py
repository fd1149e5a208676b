"""The part of a run that guidance steers (Kynkäänniemi et al. 2024, arXiv:2404.07724)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdrt.common.messages import brief, refused

if TYPE_CHECKING:
    from sdrt.request.derived import DerivedSettings

__all__ = ["GuidanceInterval", "check_guidance_interval"]

# 0.29 · 100 is a little below 29.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class GuidanceInterval:
    """The first and the last share of the steps between which guidance steers the run.

    The rule is that of diffusers' guiders: of n steps, those from ⌊start · n⌋ to ⌊end · n⌋ - 1 are guided, counted
    from 0.
    """

    start: float
    end: float

    @classmethod
    def of(cls, given: Sequence[float] | None) -> GuidanceInterval:
        """That of a checked setting. None is the whole run."""
        return cls(*((0.0, 1.0) if given is None else given))

    def guides(self, step: int, steps: int) -> bool:
        """Whether a `step`, counted from 0, is guided in a run of so many `steps`."""
        first, past = (math.floor(share * steps + _ROUNDING) for share in (self.start, self.end))
        return first <= step < past


def check_guidance_interval(request: DerivedSettings) -> None:
    """Raise `RequestError` if the interval is no pair of rising numbers."""
    given = request.guidance_interval
    if given is None:
        return
    if len(given) != 2 or given[0] >= given[1]:
        raise refused(
            "guidance_interval", f"is {brief(list(given))}", "two shares of the steps, the smaller one first"
        )
