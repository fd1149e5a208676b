"""Make a Scheduler of what a user gives as `scheduler`: a name, a config, a file or nothing."""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief, wrong_value
from sdrt.errors import RequestError
from sdrt.schedulers.flow_schedule import FlowNoiseSchedule
from sdrt.schedulers.scheduler import Scheduler
from sdrt.schedulers.table import SAMPLERS, SPACING_WORDS, SamplerRow, plain_name

__all__ = [
    "IN_MEMORY",
    "read_config",
    "resolve_scheduler",
    "scheduler_names",
    "split_name",
    "unknown_scheduler",
]

IN_MEMORY = "a config in memory"
"""The source of a scheduler that was made from a mapping."""

Config = Mapping[str, Any]
_CONFIG_NAME = "scheduler_config.json"
_LONGEST = 64
"""How many characters of a name are compared with the known names."""


def resolve_scheduler(
    value: str | os.PathLike[str] | Config | Scheduler | None,
    model_config: Config,
    spacing: str | None = None,
) -> Scheduler:
    """The scheduler that a user means.

    Args:
        value: None for the model's own; a name ("euler_a", "DPM++ 2M Karras", "DDIMScheduler"), which keeps
            the model's noise schedule and the options that both schedulers know; a diffusers config; a path
            to a `scheduler_config.json` or its folder; or a Scheduler.
        model_config: the model's own `scheduler_config.json`, parsed.
        spacing: a name from SPACINGS, which overrides the config.

    Raises:
        RequestError: an unknown name or spacing, a file that cannot be read, or a scheduler for models that
            were trained in another way.
        UnsupportedModelError: a class or key that is not supported.
    """
    scheduler = _resolve(value, model_config)
    _refuse_other_training(scheduler, model_config)
    if spacing is None:
        return scheduler
    if isinstance(value, str) and (named := split_name(value)[1]) and _differ(scheduler, named, spacing):
        raise RequestError.advised(
            f"scheduler {value!r} contradicts spacing {spacing!r}", "leave one out", argument="spacing"
        )
    return scheduler.with_spacing(spacing)


def _differ(scheduler: Scheduler, named: str, spacing: str) -> bool:
    return scheduler.sampler.spacing_named(named) != scheduler.sampler.spacing_named(str(spacing))


def scheduler_names() -> tuple[str, ...]:
    """The names to list for users, one for each sampler. A spacing, such as "Karras", may follow a name."""
    return tuple(SAMPLERS)


def _resolve(value: str | os.PathLike[str] | Config | Scheduler | None, model_config: Config) -> Scheduler:
    if isinstance(value, Scheduler):
        return value
    if value is None:
        return Scheduler.from_config({**model_config, **_LATENT_DIFFUSION})
    if isinstance(value, Mapping):
        return replace(Scheduler.from_config(value), source=IN_MEMORY)
    if not isinstance(value, (str, os.PathLike)):
        raise wrong_value("scheduler", value, "a name, a diffusers config or a path to one")
    if not isinstance(value, str) or value.endswith(".json") or os.sep in value or "/" in value:
        return replace(Scheduler.from_config(read_config(Path(value))), source=os.fspath(value))
    return _from_name(value, model_config)


# diffusers' StableDiffusionPipeline sets these in its model's own scheduler, whatever the file says.
_LATENT_DIFFUSION: Config = {"steps_offset": 1, "clip_sample": False}


def _from_name(name: str, model_config: Config) -> Scheduler:
    row, spacing = _row_of_name(name)
    own = model_config.get("_class_name")
    if row.is_for_edm and not str(own).startswith("EDM"):
        raise _refused(
            f"scheduler {brief(name)} is for models trained as in EDM, but this model's own scheduler "
            f"is {brief(own)}",
            "choose another, or give a scheduler_config.json that says how the model was trained",
        )
    if _is_flow(model_config):
        row = _row_on_flow(name, row, own)
    if own == row.class_name:
        corrected = {**model_config, **_LATENT_DIFFUSION}
    else:
        # Only the class in the file gets corrections of keys that the file leaves out.
        corrected = {**model_config, **{k: v for k, v in _LATENT_DIFFUSION.items() if k in model_config}}
    if row.name == "pndm":
        # The name means PLMS to everyone, and the configs of other schedulers have no such key.
        corrected.setdefault("skip_prk_steps", True)
    scheduler = Scheduler.from_config(corrected, sampler=row)
    return scheduler.with_spacing(spacing) if spacing else scheduler


def _is_flow(model_config: Config) -> bool:
    """Whether a model's own config says that it was trained by flow matching."""
    return str(model_config.get("_class_name")).startswith("FlowMatch")


def _row_on_flow(name: str, row: SamplerRow, own: object) -> SamplerRow:
    """The row with the rule of `row` for models trained by flow matching."""
    if row.on_flow is None:
        valid = ", ".join(other.name for other in SAMPLERS.values() if other.on_flow)
        raise _refused(
            f"scheduler {brief(name)} is not for models trained by flow matching, but this model's "
            f"own scheduler is {brief(own)}: choose one of",
            valid,
        )
    return SAMPLERS[row.on_flow]


def _refuse_other_training(scheduler: Scheduler, model_config: Config) -> None:
    """Raise `RequestError` if only one of the scheduler and the model is for flow matching."""
    own, for_flow = model_config.get("_class_name"), isinstance(scheduler.noise_schedule, FlowNoiseSchedule)
    if own is None or for_flow == _is_flow(model_config):
        return
    asked = f"scheduler {scheduler.name!r}"
    if for_flow:
        predicts = brief(model_config.get("prediction_type", "epsilon"))
        raise _refused(
            f"{asked} is for models trained by flow matching, but this model's own scheduler is "
            f"{brief(own)} with prediction_type {predicts}",
            "choose another",
        )
    raise _refused(
        f"{asked} is not for models trained by flow matching, but this model's own scheduler is {brief(own)}",
        "ask for it by name, or choose another",
    )


def _row_of_name(name: str) -> tuple[SamplerRow, str | None]:
    if name in SAMPLERS:
        return SAMPLERS[name], None
    row, spacing = split_name(name)
    if row is not None:
        return row, spacing
    raise unknown_scheduler(name)


def unknown_scheduler(name: str, argument: str = "") -> RequestError:
    """The error for a name that means no scheduler. It lists those that there are, and names the `argument`."""
    key, rows = plain_name(name), _names()
    valid = ", ".join(scheduler_names())
    close = difflib.get_close_matches(key[:_LONGEST], rows, n=1)
    hint = f" (did you mean {rows[close[0]].name}?)" if close else ""
    where = f"{argument}: " if argument else ""
    return RequestError.advised(
        f"{where}unknown scheduler {brief(name)}{hint}; choose one of",
        valid,
        argument=argument or "scheduler",
    )


def split_name(name: str) -> tuple[SamplerRow | None, str | None]:
    """The sampler that a name means, and the name of the spacing that follows it: "DPM++ 2M Karras".

    Both are None for an unknown name.
    """
    key, rows = _without_prefix(name), _names()
    if key in rows:
        return rows[key], None
    for word in SPACING_WORDS:
        if key.endswith(word) and (row := rows.get(key.removesuffix(word))):
            return row, word
    return None, None


def _without_prefix(name: str) -> str:
    """The plain name, without what k-diffusion, A1111's aliases and ComfyUI put around it."""
    short = name.strip().lower()
    if short.startswith(("k_", "sample_")):
        short = re.sub(r"_ka$", " karras", short.split("_", 1)[1])
    return plain_name(short.removesuffix("_gpu"))


@functools.cache
def _names() -> Mapping[str, SamplerRow]:
    # Reversed, so that a class's name means the first of its rows.
    return {
        plain_name(name): row
        for row in reversed(list(SAMPLERS.values()))
        for name in (row.name, row.display_name, row.class_name, *row.aliases)
        if name
    }


def read_config(path: Path) -> Config:
    """Read a `scheduler_config.json`, or the one in a folder. Raises `RequestError` if it cannot be read."""
    file = _config_in(path) if _is_folder(path) else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not valid JSON"
        raise RequestError.expected(
            f"scheduler {brief(str(path), 200)} cannot be read ({reason})",
            f"a {_CONFIG_NAME}",
            argument="scheduler",
            path=path,
        ) from error
    if not isinstance(config, dict):
        raise RequestError.expected(
            f"scheduler {brief(str(path), 200)} is not a JSON object",
            f"a {_CONFIG_NAME}",
            argument="scheduler",
            path=path,
        )
    return config


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no file can have this name; reading it says why
        return False


def _config_in(folder: Path) -> Path:
    """The config in a scheduler's folder, or in the folder of a model. Raises `RequestError` if there is none."""
    places = (folder / _CONFIG_NAME, folder / "scheduler" / _CONFIG_NAME)
    if found := [place for place in places if place.exists()]:
        return found[0]
    raise RequestError.expected(
        f"scheduler {brief(str(folder), 200)} is a folder without {_CONFIG_NAME}",
        f"a name such as euler, a {_CONFIG_NAME}, or a folder that contains one",
        argument="scheduler",
        path=folder,
    )


def _refused(problem: str, remedy: str) -> RequestError:
    return RequestError.advised(problem, remedy, argument="scheduler")
