"""Metadata of other programs in the labels of sdrt, with what cannot be said in them.

A1111 counts differently in three places: the steps of image to image and of the second pass, the CLIP layers of "Clip
skip", and "Eta". The rules are those of its `sd_samplers_common.setup_img2img_steps`, and of its reader and writer of
infotexts (version 1.10).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import SdrtError
from sdrt.request.bounds import MAX_STEPS
from sdrt.request.labels import scheduler_name
from sdrt.request.other_labels import ALIASES, group_of, has_no_effect, is_off, plain
from sdrt.request.setting import Setting
from sdrt.request.table import TABLE, labelled_settings, parse_size

__all__ = ["Difference", "Translation", "translate"]

# A1111's samplers that take whole timesteps. They have their own spacing, whatever the schedule type is.
_ON_TIMESTEPS = frozenset({"DDIM", "DDIM CFG++", "PLMS", "UniPC"})
_PASSED_ON = ("Schedule type",)  # `settings_values` reads it together with the sampler
_MASK = ("Mask blur", "Mask mode", "Masked content", "Inpaint area")
_MOST_STRENGTH = 0.999
# Configs of models of each kind of training.
_TRAINED_FOR: tuple[Mapping[str, Any], ...] = (
    {},
    {"_class_name": "EDMEulerScheduler"},
    {"_class_name": "FlowMatchEulerDiscreteScheduler"},
)
_USUAL_HIRES_SCALE = "2.0"
_OLD_FIRST_PASS = 512 * 512
_CHECKPOINT = ("checkpoint", "model")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something in metadata that sdrt cannot do as the metadata say."""

    label: str
    """The label, or the name of a group of labels."""
    value: str = ""
    option: str = ""
    """The setting with which a user says otherwise, so that the metadata do not count."""
    minor: bool = False
    """Whether the image is the same except in details, so that a notice suffices."""


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Metadata in the labels of sdrt."""

    texts: dict[str, str]
    differences: list[Difference] = field(default_factory=list)

    def differs(self, label: str, value: str, option: str = "", *, minor: bool = False) -> None:
        """Note that `label` cannot be done. Only the first of several with the same name is kept."""
        if all(label != other.label for other in self.differences):
            self.differences.append(Difference(label=label, value=value, option=option, minor=minor))


def translate(texts: Mapping[str, str], table: Sequence[Setting] = TABLE) -> Translation:
    """Say what metadata say in the labels of sdrt. Metadata of sdrt itself stay as they are."""
    known = {plain(row.label.name): row.label.name for row in labelled_settings(table) if row.label}
    found = Translation(texts=_renamed(texts, known))
    if _is_path(found.texts.get("Sampler", "")):
        # A scheduler may be a file, but only if the user names it.
        found.differs("Sampler", found.texts.pop("Sampler"), "scheduler")
    if not texts.get("Version", "").startswith("sdrt "):
        for convert in (_sampler, _eta, _clip_skip, _hires, _image_to_image, _mask, _resources, _hashes):
            convert(found)
    said = dict(found.texts)
    for label, value in said.items():
        if plain(label) in known or label in _PASSED_ON:
            continue
        if not has_no_effect(label, value) and not is_off(label, said):
            found.differs(group_of(label), value, _option(label))
        del found.texts[label]
    return found


def _renamed(texts: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """The texts under the labels of sdrt and A1111. A label in its usual spelling goes before its other names."""
    names = {label: known.get(plain(label)) or ALIASES.get(plain(label), label) for label in texts}
    renamed = {name: texts[label] for label, name in names.items() if label != name}
    return {name: texts.get(name, renamed.get(name, "")) for name in names.values()}


def _option(label: str) -> str:
    name = plain(label)
    if name in ("ensd", "variation seed strength", "variation strength", "seed resize from"):
        return "seed"
    if name.startswith(("sigma ", "schedule ", "unipc ", "beta schedule ", "sampler ")):
        return "scheduler"
    return "prompt_syntax" if name in ("parser", "emphasis") else ""


def _sampler(found: Translation) -> None:
    texts = found.texts
    _scheduler_label(texts)
    sampler, schedule = texts.get("Sampler", ""), texts.get("Schedule type")
    if sampler in _ON_TIMESTEPS and "Pipeline" not in texts:
        texts.pop("Schedule type", None)
    elif "Schedule type" in texts and not _is_known(scheduler_name(sampler, schedule)) and _is_known(sampler):
        found.differs("Schedule type", texts.pop("Schedule type"), "scheduler")
    if sampler and not _is_known(scheduler_name(sampler, texts.get("Schedule type"))):
        found.differs("Sampler", sampler, "scheduler")
        del texts["Sampler"]
        texts.pop("Schedule type", None)
    if "SDE" in sampler:
        # A1111 draws it from a Brownian tree.
        found.differs(f"the fresh noise of {brief(sampler)}", "", "scheduler", minor=True)


def _scheduler_label(texts: dict[str, str]) -> None:
    """SD.Next's "Scheduler" is diffusers' class; savers of ComfyUI write the schedule type under this name."""
    scheduler = texts.pop("Scheduler", "")
    if not scheduler:
        return
    if not scheduler.endswith("Scheduler"):
        texts.setdefault("Schedule type", scheduler)
    elif texts.get("Sampler", "Default") == "Default":
        texts["Sampler"] = scheduler


def _is_path(sampler: str) -> bool:
    return "/" in sampler or "\\" in sampler or sampler.endswith(".json")


def _is_known(name: str) -> bool:
    from sdrt.schedulers import resolve_scheduler

    for trained_for in _TRAINED_FOR:
        with suppress(SdrtError):
            resolve_scheduler(name, trained_for)
            return True
    return False


def _noise_of(sampler: str) -> str:
    """Whether a sampler draws fresh noise: "never", "always", or "eta" if its share is a setting."""
    from sdrt.schedulers import resolve_scheduler

    try:
        scheduler = resolve_scheduler(sampler, {})
    except SdrtError:
        return "always"
    return "eta" if scheduler.reads_eta else "always" if scheduler.stochastic() else "never"


def _eta(found: Translation) -> None:
    """A1111 has an eta for DDIM, and one for samplers with fresh noise, of which sdrt has only 1."""
    texts, noise = found.texts, _noise_of(found.texts.get("Sampler", ""))
    if noise == "never":
        texts.pop("ENSD", None)
    of_ddim, eta = texts.pop("Eta DDIM", None), texts.pop("Eta", None)
    if noise == "eta" and (of_ddim or eta):
        texts["Eta"] = of_ddim or eta or ""
    elif noise == "always" and eta is not None and not has_no_effect("Eta", eta):
        found.differs("Eta", eta, "scheduler")


def _clip_skip(found: Translation) -> None:
    skip = _number(found.texts.get("Clip skip"))
    if skip is None:
        return
    if skip != int(skip):
        found.differs("Clip skip", found.texts["Clip skip"], "clip_skip")
    if skip <= 1:
        del found.texts["Clip skip"]
    else:
        found.texts["Clip skip"] = str(int(skip))


def _hires(found: Translation) -> None:
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
        texts.setdefault("Hires upscale", _USUAL_HIRES_SCALE)
    if (scale := _number(texts.get("Hires upscale"))) is None:
        return
    if size and all(size):
        _whole_latents(found, size, scale)
    _upscaler(found)
    for label, same in (("Hires sampler", "Sampler"), ("Hires schedule type", "Schedule type")):
        if texts.get(label) == texts.get(same):
            texts.pop(label, None)
    if _number(texts.get("Hires CFG Scale")) == _number(texts.get("CFG scale")):
        texts.pop("Hires CFG Scale", None)
    _steps_of_second_pass(found)


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
    """A1111 runs all steps of the second pass, whatever the strength; sdrt runs the share that the strength says."""
    texts = found.texts
    strength = _number(texts.get("Denoising strength"))
    if _number(texts.get("Hires steps")) == 0:
        del texts["Hires steps"]
    steps = _number(texts.get("Hires steps") or texts.get("Steps"))
    if not strength or not steps or not 0 < strength <= 1 or not 1 <= steps <= MAX_STEPS:
        return
    planned = int(steps / min(strength, _MOST_STRENGTH))
    if planned > MAX_STEPS:
        found.differs("Hires steps", str(int(steps)), "hires_steps")
        return
    texts["Hires steps"] = str(planned)
    texts["Denoising strength"] = _share(int(steps) - _skipped(texts), planned)


def _image_to_image(found: Translation) -> None:
    """A1111 runs a step more than diffusers does, with the samplers of k-diffusion."""
    texts = found.texts
    strength, steps = _number(texts.get("Denoising strength")), _number(texts.get("Steps"))
    if "Hires upscale" in texts or strength is None or steps is None:
        return
    if 0 < strength <= 1 and 1 <= steps <= MAX_STEPS:
        run = int(min(strength, _MOST_STRENGTH) * steps) + 1 - _skipped(texts)
        texts["Denoising strength"] = _share(run, int(steps))


def _skipped(texts: Mapping[str, str]) -> int:
    return 1 if texts.get("Sampler") in _ON_TIMESTEPS else 0


def _share(run: int, steps: int) -> str:
    """The strength with which sdrt runs `run` of `steps` steps."""
    strength = max(run, 1) / steps
    if int(steps * strength) < max(run, 1):
        strength = math.nextafter(strength, 2)
    return repr(min(strength, 1.0))


def _mask(found: Translation) -> None:
    texts = found.texts
    if not any(label in texts for label in _MASK):
        return
    texts.setdefault("Mask blur", "0")
    found.differs("how the mask is blurred", "", minor=True)
    if plain(texts.get("Inpaint area", "")) == "only masked":
        texts.setdefault("Masked area padding", "32")
    else:
        texts.pop("Masked area padding", None)


def _resources(found: Translation) -> None:
    """Civitai's list of what made the image: LoRAs and textual inversions beside the checkpoint."""
    text = found.texts.pop("Civitai resources", None)
    if text is None:
        return
    listed = _json(text)
    kinds = (
        [str(one.get("type")) for one in listed if isinstance(one, dict)]
        if isinstance(listed, list)
        else [text]
    )
    if others := [kind for kind in kinds if kind.casefold() not in _CHECKPOINT]:
        found.differs("Civitai resources", ", ".join(others))


def _hashes(found: Translation) -> None:
    text = found.texts.pop("Hashes", None)
    if text is None:
        return
    listed = _json(text)
    names = list(listed) if isinstance(listed, dict) else [text]
    if others := [str(name) for name in names if name not in ("model", "vae")]:
        found.differs("Hashes", ", ".join(others))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _number(text: str | None) -> float | None:
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
