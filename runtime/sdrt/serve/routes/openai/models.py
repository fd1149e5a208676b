"""`/v1/models`: what the server offers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from sdrt.serve.asked import model_name
from sdrt.serve.routes.common import service_of
from sdrt.serve.service import Service

__all__ = ["router"]

router = APIRouter()


@router.get("/v1/models")
async def listed(request: Request) -> dict[str, Any]:
    """The models, the default one first."""
    service = service_of(request)
    return {"object": "list", "data": [_described(service, name) for name in service.model_names]}


# A name may be a hub id, which has a slash.
@router.get("/v1/models/{model:path}")
async def one(request: Request, model: str) -> dict[str, Any]:
    """One model."""
    service = service_of(request)
    return _described(service, model_name(service, model))


def _described(service: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(service.started), "owned_by": "sdrt"}
