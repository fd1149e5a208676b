"""What the server offers, for pages and programs that let users choose: models, schedulers, LoRAs and limits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sdrt.adapters.lora_folder import LoraFolder
from sdrt.errors import ModelError, SdrtError
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.resolve import open_local
from sdrt.request.control_settings import PREPROCESSORS
from sdrt.schedulers import SAMPLERS, SPACING_LABELS, SPACINGS, resolve_scheduler
from sdrt.serve.served_model import ServedModel
from sdrt.serve.service import Service

__all__ = ["facts_of", "offered"]

_UNKNOWN: Mapping[str, Any] = dict.fromkeys(
    (
        *("task", "width", "height", "size_step", "num_inference_steps", "guidance_scale", "strength"),
        "masked_strength",
        *("scheduler", "schedulers", "takes_image", "controlnets", "ip_adapters"),
    )
)


def offered(service: Service) -> dict[str, Any]:
    """What the server offers, as JSON. Reads configs, so that it belongs in a thread.

    Raises:
        SdrtError: the folder of LoRAs is gone, or has too many files.
    """
    limits = service.limits
    return {
        "default_model": service.default_model,
        "models": [{"name": one.name} | facts_of(one) for one in service.options.models],
        "schedulers": [{"name": name, "title": row.display_name} for name, row in SAMPLERS.items()],
        "spacings": [{"name": name, "title": SPACING_LABELS.get(name, name)} for name in SPACINGS],
        "preprocessors": list(PREPROCESSORS),
        "loras": [] if service.lora_dir is None else LoraFolder(service.lora_dir).names(),
        "limits": {
            "images": limits.images,
            "steps": limits.steps,
            "pixels": limits.pixels,
            "body": limits.largest_body,
        },
    }


def facts_of(model: ServedModel) -> dict[str, Any]:
    """What calls of a model use for the settings that they do not give, and what else it can do.

    All values are None for a checkpoint and for a model on the hub, whose graphs are made when a worker opens it.
    """
    try:
        return _facts(open_local(model.source))
    except ModelError:
        return dict(_UNKNOWN)


def _facts(folder: ModelFolder) -> dict[str, Any]:
    known, config = folder.capabilities, folder.scheduler_config
    return {
        "task": known.task.name,
        "width": known.default_width,
        "height": known.default_height,
        "size_step": known.size_step,
        "num_inference_steps": known.defaults.num_inference_steps,
        "guidance_scale": known.defaults.guidance_scale,
        "strength": None if "strength" in known.task.refuses else known.task.strength,
        "masked_strength": None if "strength" in known.task.refuses else known.task.masked_strength,
        "scheduler": resolve_scheduler(None, config).name,
        "schedulers": [name for name in SAMPLERS if _runs(name, config)],
        "takes_image": known.has_vae_encoder,
        "controlnets": list(folder.controlnet_names),
        "ip_adapters": list(folder.ip_adapter_names),
    }


def _runs(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler is for models that were trained like this one."""
    with suppress(SdrtError):
        resolve_scheduler(scheduler, config)
        return True
    return False
