"""What A1111's clients ask for at their start: samplers, models, LoRAs, upscalers, scripts, memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from sdrt.errors import SdrtError
from sdrt.serve.routes.a1111.model_facts import facts_of, title_of
from sdrt.serve.routes.common import service_of
from sdrt.serve.service import Service

__all__ = ["router"]

router = APIRouter()

_UPSCALERS = ("None", "Lanczos", "Nearest")
_OF_CONTROLNET = ("controlnet", "controlnet m2m")
"""The scripts of the extension. webuiapi looks for the second, and without it repeats its units in later requests."""
_TRAINER = "ss_"
"""How trainers begin the names of what they write into a LoRA."""


@router.get("/samplers")
async def samplers() -> list[dict[str, Any]]:
    """The samplers of models that were trained as Stable Diffusion was."""
    from sdrt.schedulers import SAMPLERS

    return [
        {"name": row.display_name, "aliases": [row.name, *row.aliases], "options": {}}
        for row in SAMPLERS.values()
        if not row.is_for_edm and not row.is_for_flow
    ]


@router.get("/schedulers")
async def schedulers() -> list[dict[str, Any]]:
    """The schedule types."""
    from sdrt.schedulers import SPACING_LABELS

    known = {"automatic": "Automatic", "uniform": "Uniform", **SPACING_LABELS}
    return [
        {"name": name, "label": label, "aliases": None, "default_rho": None, "need_inner_model": None}
        for name, label in known.items()
    ]


@router.get("/sd-models")
async def sd_models(request: Request) -> list[dict[str, Any]]:
    """The models, without their places on the server."""
    service = service_of(request)
    found = []
    for name in service.model_names:
        facts = await facts_of(service, name)
        found.append(
            {
                "title": title_of(name, facts),
                "model_name": name,
                "hash": facts.short_hash,
                "sha256": facts.sha256,
                "filename": name,
                "config": None,
            }
        )
    return found


@router.get("/loras")
async def loras(request: Request) -> list[dict[str, Any]]:
    """The LoRAs that prompts can name, without their places on the server."""
    folder = service_of(request).lora_dir
    return [] if folder is None else await asyncio.to_thread(_loras, folder)


def _loras(folder: Path) -> list[dict[str, Any]]:
    from sdrt.adapters.lora_folder import LoraFolder

    found = []
    for relative, file in LoraFolder(folder).files().items():
        said = _metadata(file)
        name = relative.rpartition("/")[2]
        found.append(
            {
                "name": name,
                "alias": said.get("ss_output_name") or name,
                "path": f"{relative}.safetensors",
                "metadata": {key: value for key, value in said.items() if key.startswith(_TRAINER)},
            }
        )
    return found


def _metadata(file: Path) -> Mapping[str, str]:
    """What the trainer wrote into a file. Empty for one that cannot be read, which a request then says."""
    from sdrt.common.safetensors_file import read_header

    try:
        return read_header(file).metadata
    except (SdrtError, OSError):
        return {}


@router.get("/upscalers")
async def upscalers() -> list[dict[str, Any]]:
    """What `extra-single-image` enlarges with."""
    return [
        {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}
        for name in _UPSCALERS
    ]


@router.get("/latent-upscale-modes")
async def latent_upscale_modes() -> list[dict[str, str]]:
    """What enlarges latents for a second pass."""
    return [{"name": "Latent"}]


@router.get("/embeddings")
async def embeddings() -> dict[str, dict[str, Any]]:
    """The embeddings: none."""
    return {"loaded": {}, "skipped": {}}


@router.get("/sd-vae")
@router.get("/hypernetworks")
@router.get("/prompt-styles")
@router.get("/realesrgan-models")
@router.get("/face-restorers")
@router.get("/script-info")
@router.get("/extensions")
async def nothing() -> list[Any]:
    """What this server has none of."""
    return []


@router.get("/scripts")
async def scripts(request: Request) -> dict[str, list[str]]:
    """The scripts of `alwayson_scripts`, in lower case as in A1111."""
    service = service_of(request)
    has_controlnet = any([(await facts_of(service, name)).controlnets for name in service.model_names])
    names = list(_OF_CONTROLNET) if has_controlnet else []
    return {"txt2img": names, "img2img": names}


@router.get("/cmd-flags")
async def cmd_flags() -> dict[str, Any]:
    """A1111's options of its command. This server has others."""
    return {"api": True}


@router.get("/memory")
async def memory(request: Request) -> dict[str, Any]:
    """Bytes of memory: free, used by the server with its workers, and all."""
    return await asyncio.to_thread(_memory, service_of(request))


def _memory(service: Service) -> dict[str, Any]:
    from sdrt.benchmark.memory import available_bytes, own_bytes

    pids = [slot.worker.pid for slot in service.dispatcher.slots if slot.worker is not None]
    used = [own_bytes(pid) or 0 for pid in ("self", *pids) if pid is not None]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "ram": {"free": available_bytes(), "used": sum(used), "total": total},
        "cuda": {"error": "unavailable"},
    }


@router.post("/refresh-checkpoints")
@router.post("/refresh-vae")
@router.post("/refresh-loras")
async def refresh() -> None:
    """Nothing to do: the models are those of the start, and the folder of LoRAs is read anew each time."""
