"""What clients ask A1111's ControlNet extension for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from sdrt.request.control_settings import MAX_CONTROLNETS, PREPROCESSORS
from sdrt.serve.errors import ServeError
from sdrt.serve.routes.a1111.model_facts import facts_of
from sdrt.serve.routes.common import service_of

__all__ = ["router"]

router = APIRouter()


async def _names(request: Request) -> list[str]:
    """The ControlNets of all models.

    Raises:
        ServeError: there are none, so that the server answers as A1111 without the extension.
    """
    service = service_of(request)
    found = [name for model in service.model_names for name in (await facts_of(service, model)).controlnets]
    if not found:
        raise ServeError(404, "Not Found")
    return list(dict.fromkeys(found))


@router.get("/model_list")
async def model_list(request: Request) -> dict[str, list[str]]:
    """The ControlNets."""
    return {"model_list": await _names(request)}


@router.get("/module_list")
async def module_list(request: Request) -> dict[str, Any]:
    """The preprocessors."""
    await _names(request)
    sliders = [
        {"name": f"{which} Threshold", "value": value, "min": 1, "max": 255, "step": 1}
        for which, value in (("Low", 100), ("High", 200))
    ]
    return {
        "module_list": list(PREPROCESSORS),
        "module_detail": {
            name: {"model_free": False, "sliders": sliders if name == "canny" else []}
            for name in PREPROCESSORS
        },
    }


@router.get("/control_types")
async def control_types(request: Request) -> dict[str, Any]:
    """The kinds of ControlNets. This server does not sort them."""
    names = await _names(request)
    every = {
        "module_list": list(PREPROCESSORS),
        "model_list": names,
        "default_option": PREPROCESSORS[0],
        "default_model": names[0],
    }
    return {"control_types": {"All": every}}


@router.get("/settings")
async def settings(request: Request) -> dict[str, int]:
    """How many ControlNets a request can use."""
    await _names(request)
    return {"control_net_unit_count": MAX_CONTROLNETS}
