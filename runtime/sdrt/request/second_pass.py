"""The steps and sizes of A1111's second pass ("Hires. fix") and of its image to image, in those of sdrt.

The rules are those of A1111's `sd_samplers_common.setup_img2img_steps` and of `processing`'s
`calculate_target_resolution` (version 1.10).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdrt.errors import RequestError
from sdrt.request.bounds import MAX_STEPS
from sdrt.request.other_labels import plain
from sdrt.request.table import parse_size

if TYPE_CHECKING:
    from sdrt.request.translated import Translation

__all__ = ["ON_TIMESTEPS", "image_to_image", "number", "second_pass"]

ON_TIMESTEPS = frozenset({"DDIM", "DDIM CFG++", "PLMS", "UniPC"})
"""A1111's samplers that take whole timesteps. They have their own spacing, with every schedule type."""
_MOST_STRENGTH = 0.999
_USUAL_SCALE = "2.0"
_OLD_FIRST_PASS = 512 * 512


def second_pass(found: Translation) -> None:
    """Say the size, the scale, the upscaler and the steps of the second pass in the labels of sdrt."""
    texts = found.texts
    size = _size(texts.get("Size"))
    if (first := _size(texts.pop("First pass size", None))) and size:
        # The size in these files, of 2022, is that of the second pass.
        texts["Hires resize"] = texts["Size"]
        size = first if 0 not in first else _old_first_pass(*size)
        texts["Size"] = "{}x{}".format(*size)
    target = _size(texts.pop("Hires resize", None)) or _size(texts.pop("Hires fixed", None))
    if target and any(target) and size and all(size):
        _resize(found, size, target)
    elif "Hires upscaler" in texts and "Denoising strength" in texts:
        texts.setdefault("Hires upscale", _USUAL_SCALE)
    if (scale := number(texts.get("Hires upscale"))) is None:
        for label in ("Hires sampler", "Hires schedule type"):
            texts.pop(label, None)
        return
    if size and all(size):
        _whole_latents(found, size, scale)
    _upscaler(found)
    for label, same in (("Hires sampler", "Sampler"), ("Hires schedule type", "Schedule type")):
        if texts.get(label) == texts.get(same):
            texts.pop(label, None)
    if number(texts.get("Hires CFG Scale")) == number(texts.get("CFG scale")):
        texts.pop("Hires CFG Scale", None)
    _steps_of_second_pass(found)
    _scheduler(found)


def _scheduler(found: Translation) -> None:
    """Say the sampler and the schedule type of the second pass by one name. Each may be that of the first pass."""
    from sdrt.schedulers import scheduler_of_a1111

    texts = found.texts
    sampler, schedule = (texts.pop(label, None) for label in ("Hires sampler", "Hires schedule type"))
    sampler = None if sampler == "Use same sampler" else sampler
    schedule = None if schedule == "Use same scheduler" else schedule
    if sampler is None and schedule is None:
        return
    schedule_of_first = texts.get("Schedule type")
    try:
        named = scheduler_of_a1111(
            sampler or texts.get("Sampler"), schedule or schedule_of_first, texts.get("Version")
        )
    except RequestError:
        found.differs(
            "Hires sampler" if sampler else "Hires schedule type",
            sampler or schedule or "",
            "hires_scheduler",
        )
        return
    if named is not None:
        texts["Hires sampler"] = named


def _resize(found: Translation, size: tuple[int, int], target: tuple[int, int]) -> None:
    """A target size as a scale. A1111 cuts off what is outside a target of another shape; here it stays."""
    scale = max(target[0] / size[0], target[1] / size[1])
    if all(target) and any(round(side * scale) != wanted for side, wanted in zip(size, target, strict=True)):
        found.differs("Hires resize", "{}x{}".format(*target), "hires_scale")
    found.texts["Hires upscale"] = repr(scale)


def _whole_latents(found: Translation, size: tuple[int, int], scale: float) -> None:
    """A1111 cuts the larger size to a multiple of 8 pixels, where sdrt rounds it."""
    if not 1 <= scale <= 16:
        return
    cut = [int(side * scale) // 8 * 8 for side in size]
    for exact in (scale, cut[0] / size[0], cut[1] / size[1]):
        if [round(side * exact / 8) * 8 for side in size] == cut:
            found.texts["Hires upscale"] = repr(exact)
            return
    found.differs("Hires upscale", found.texts["Hires upscale"], "hires_scale")


def _upscaler(found: Translation) -> None:
    upscaler = found.texts.get("Hires upscaler", "Latent")
    if plain(upscaler) not in ("latent", "lanczos"):
        found.differs("Hires upscaler", upscaler, "hires_upscaler")
        found.texts["Hires upscaler"] = "Latent" if plain(upscaler).startswith("latent") else "Lanczos"


def _steps_of_second_pass(found: Translation) -> None:
    """A1111 runs all steps of the second pass at every strength. sdrt runs the share that the strength sets."""
    texts = found.texts
    strength = number(texts.get("Denoising strength"))
    if number(texts.get("Hires steps")) == 0:
        del texts["Hires steps"]
    steps = number(texts.get("Hires steps") or texts.get("Steps"))
    if not strength or not steps or not 0 < strength <= 1 or not 1 <= steps <= MAX_STEPS:
        return
    strength = min(strength, _MOST_STRENGTH)
    if steps > strength * MAX_STEPS:
        found.differs("Hires steps", str(int(steps)), "hires_steps")
        return
    planned = int(steps / strength)
    texts["Hires steps"] = str(planned)
    texts["Denoising strength"] = _share(int(steps) - _skipped(texts, "Hires sampler"), planned)


def image_to_image(found: Translation) -> None:
    """A1111 runs a step more than diffusers does, with the samplers of k-diffusion."""
    texts = found.texts
    strength, steps = number(texts.get("Denoising strength")), number(texts.get("Steps"))
    if "Hires upscale" in texts or strength is None or steps is None:
        return
    if 0 < strength <= 1 and 1 <= steps <= MAX_STEPS:
        run = int(min(strength, _MOST_STRENGTH) * steps) + 1 - _skipped(texts)
        texts["Denoising strength"] = _share(run, int(steps))


def _skipped(texts: Mapping[str, str], label: str = "Sampler") -> int:
    return 1 if texts.get(label, texts.get("Sampler")) in ON_TIMESTEPS else 0


def _share(run: int, steps: int) -> str:
    """The strength with which sdrt runs `run` of `steps` steps."""
    strength = max(run, 1) / steps
    if int(steps * strength) < max(run, 1):
        strength = math.nextafter(strength, 2)
    return repr(min(strength, 1.0))


def number(text: str | None) -> float | None:
    """The finite number in a text, or None."""
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _size(text: str | None) -> tuple[int, int] | None:
    try:
        return parse_size(text or "")
    except ValueError:
        return None


def _old_first_pass(width: int, height: int) -> tuple[int, int]:
    """The size that A1111 chose in 2022 for the first pass: about 512x512 pixels, in multiples of 64."""
    scale = math.sqrt(_OLD_FIRST_PASS / max(1, width * height))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64
