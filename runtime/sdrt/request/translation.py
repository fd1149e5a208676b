"""Metadata of other programs in the labels of sdrt, with what cannot be said in them.

The rules are those of A1111's reader and writer of infotexts (version 1.10), and of SD.Next's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import SdrtError
from sdrt.request.control_texts import read_controls
from sdrt.request.labels import scheduler_name
from sdrt.request.other_guidance import skip_early_cfg
from sdrt.request.other_labels import ALIASES, group_of, has_no_effect, is_off, plain
from sdrt.request.other_prompts import note_old_editing, note_padding
from sdrt.request.second_pass import ON_TIMESTEPS, image_to_image, number, second_pass
from sdrt.request.setting import Setting
from sdrt.request.table import TABLE, labelled_settings
from sdrt.request.translated import Translation

__all__ = ["translate"]

_MASK = ("Mask blur", "Mask mode", "Masked content", "Inpaint area")
# Configs of models of each kind of training.
_TRAINED_FOR: tuple[Mapping[str, Any], ...] = (
    {},
    {"_class_name": "EDMEulerScheduler"},
    {"_class_name": "FlowMatchEulerDiscreteScheduler"},
)
# v1.10.1, 1.7.0, f2.0.1v1.10.1-previous-…
_VERSION_OF_A1111 = re.compile(r"(f[\d.]*)?v?\d")
_REFINER = ("Refiner switch at", "Refiner switch by sampling steps", "Hires refiner")
_FIRST_WITH_TIMESTEPS = (1, 8)
# A1111 writes "sd_xl_refiner_1.0 [7440042bbd]".
_HASH = re.compile(r"(?<!\s)\s*\[[0-9a-fA-F]{6,64}\]$")
_CHECKPOINT = ("checkpoint", "model")
# SD.Next's readers of prompts, by the names of several versions.
_SYNTAXES = {
    "a1111": "a1111",
    "a1111 parser": "a1111",
    "compel": "compel",
    "compel parser": "compel",
    "fixed": "plain",
    "fixed attention": "plain",
}


def translate(
    texts: Mapping[str, str], table: Sequence[Setting] = TABLE, prompts: Sequence[str] = ("", "")
) -> Translation:
    """Say what metadata say in the labels of sdrt. Metadata of sdrt itself stay as they are.

    `prompts` are the prompt and the negative prompt.
    """
    known = {plain(row.label.name): row.label.name for row in labelled_settings(table) if row.label}
    found = Translation(texts=_renamed(texts, known))
    if _is_path(found.texts.get("Sampler", "")):
        # A scheduler may be a file, but only if the user names it.
        found.differs("Sampler", found.texts.pop("Sampler"), "scheduler")
    _vae(found)
    read_controls(found)
    if not found.texts.get("Version", "").startswith("sdrt "):
        for convert in _CONVERSIONS:
            convert(found)
        if _is_a1111(found.texts):
            note_old_editing(found, prompts)
            note_padding(found, prompts)
    said = dict(found.texts)
    for label, value in said.items():
        if plain(label) in known:
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
    if sampler in ON_TIMESTEPS and _is_a1111(texts):
        texts.pop("Schedule type", None)
    elif "Schedule type" in texts and not _is_known(scheduler_name(sampler, schedule)) and _is_known(sampler):
        found.differs("Schedule type", texts.pop("Schedule type"), "scheduler")
    if sampler and not _is_known(scheduler_name(sampler, texts.get("Schedule type"))):
        found.differs("Sampler", sampler, "scheduler")
        del texts["Sampler"]
        texts.pop("Schedule type", None)
    _schedule(texts)
    if "SDE" in sampler:
        # A1111 draws it from a Brownian tree.
        found.differs(f"the fresh noise of {brief(sampler)}", "", "scheduler", minor=True)


def _schedule(texts: dict[str, str]) -> None:
    """Say which spacing a sampler has without a schedule type, or with Automatic."""
    from sdrt.schedulers import automatic_spacing

    if texts.get("Schedule type", "Automatic").casefold() != "automatic":
        return
    texts.pop("Schedule type", None)
    # Other programs take the model's.
    if not _is_a1111(texts) or "Sampler" not in texts or "Spacing" in texts:
        return
    if spacing := automatic_spacing(texts["Sampler"], texts.get("Version")):
        texts["Spacing"] = spacing


def _is_a1111(texts: Mapping[str, str]) -> bool:
    """Whether A1111 or Forge wrote the texts, or a program that does not say its name."""
    others = {"Pipeline", "Noise scale"}  # SD.Next, and what reads ComfyUI's and InvokeAI's metadata
    return not others & texts.keys() and _VERSION_OF_A1111.match(texts.get("Version", "v1")) is not None


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
    skip = number(found.texts.get("Clip skip"))
    if skip is None:
        return
    if skip != int(skip):
        found.differs("Clip skip", found.texts["Clip skip"], "clip_skip")
    if skip <= 1:
        del found.texts["Clip skip"]
    else:
        found.texts["Clip skip"] = str(int(skip))


def _parser(found: Translation) -> None:
    if syntax := _SYNTAXES.get(plain(found.texts.get("Parser", ""))):
        del found.texts["Parser"]
        found.texts["Prompt syntax"] = syntax


def _refiner(found: Translation) -> None:
    """Since 1.8, A1111 counts in timesteps, as sdrt does; before, it counted in steps. Other programs differ."""
    from sdrt.schedulers import version_of_a1111

    texts = found.texts
    _refiner_of_others(found)
    if "Refiner" not in texts:
        for label in _REFINER:
            texts.pop(label, None)
        return
    texts["Refiner"] = _HASH.sub("", texts["Refiner"])
    if _is_a1111(texts) and version_of_a1111(texts.get("Version")) < _FIRST_WITH_TIMESTEPS:
        texts["Refiner switch by sampling steps"] = "True"


def _refiner_of_others(found: Translation) -> None:
    """Translate where the refiner of other programs takes over, as far as their metadata tell.

    SD.Next's refiner makes a run of its own, with its own number of steps. It begins at the share of the noise schedule
    where the first run ended. Fooocus counts steps, and its sampler continues as sdrt's does.
    """
    texts = found.texts
    start = texts.pop("Refiner start", None)
    switch, steps = number(texts.pop("Overwrite Switch", None)), number(texts.get("Steps"))
    if "Refiner" not in texts or _is_a1111(texts):
        return
    if start is not None:
        texts["Refiner switch at"] = start
        found.differs("Refiner", texts["Refiner"])
    elif switch and steps and switch < steps:
        texts |= {
            "Refiner switch at": repr(switch / steps),
            "Refiner switch by sampling steps": "True",
        }
    elif "Refiner switch at" not in texts:
        found.differs("Refiner", texts.pop("Refiner"), "refiner")


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


def _vae(found: Translation) -> None:
    """Note another VAE than the model's own. As with a scheduler's file, sdrt opens it only if the user names it."""
    value = found.texts.pop("VAE", None)
    if value is not None and not has_no_effect("VAE", value):
        found.differs("VAE", value, "vae")


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


_CONVERSIONS = (
    *(_sampler, _eta, _clip_skip, _parser, _refiner),
    *(skip_early_cfg, second_pass, image_to_image, _mask, _resources, _hashes),
)
