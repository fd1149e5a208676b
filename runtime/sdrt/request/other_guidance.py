"""Which steps other programs guide, in the words of sdrt.

The rule is that of A1111's `CFGDenoiser` (version 1.10). With `Skip Early CFG` s, it leaves the negative prompt out of
each call of the U-Net whose number, counted from 0, is at most s times the number of all calls.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sdrt.errors import SdrtError
from sdrt.request.second_pass import number

if TYPE_CHECKING:
    from sdrt.request.translated import Translation

__all__ = ["skip_early_cfg"]

_LABEL = "Skip Early CFG"
_MOST_STRENGTH = 0.999


def skip_early_cfg(found: Translation) -> None:
    """Say from which step on A1111 guides as a guidance interval, if that can be said."""
    texts = found.texts
    share, steps = number(texts.get(_LABEL)), _steps(found)
    if not share or steps is None or "CFG interval" in texts:
        return
    calls = _calls_of_a_step(texts.get("Sampler", ""))
    skipped = math.floor(share * steps * calls) + 1
    # A second pass has its own number of steps, and a step of two calls may be half guided.
    is_exact = skipped % calls == 0 and "Hires upscale" not in texts
    first = -(-skipped // calls)
    if first >= steps:
        return
    text = texts.pop(_LABEL)
    texts["CFG interval"] = f"{first / steps!r},1"
    if not is_exact:
        found.differs(_LABEL, text, "guidance_interval", minor=True)


def _steps(found: Translation) -> int | None:
    """The number of steps that run. Image to image runs a part of them."""
    steps, strength = number(found.texts.get("Steps")), number(found.texts.get("Denoising strength"))
    if steps is None or steps < 1:
        return None
    if strength is None or "Hires upscale" in found.texts:
        return int(steps)
    return int(min(max(strength, 0.0), _MOST_STRENGTH) * steps) + 1


def _calls_of_a_step(sampler: str) -> int:
    from sdrt.schedulers import resolve_scheduler

    try:
        return resolve_scheduler(sampler, {}).sampler.evaluations
    except SdrtError:
        return 1
