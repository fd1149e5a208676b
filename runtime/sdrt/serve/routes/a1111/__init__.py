"""The API of A1111's web UI, as its clients use it (`docs/serve-a1111.md` says which fields do what)."""

from __future__ import annotations

from fastapi import APIRouter, Request

from sdrt.serve.routes.a1111 import controlnet_lists, extras, generate, lists, options, progress
from sdrt.serve.routes.a1111.clients import Clients
from sdrt.serve.routes.common import service_of

__all__ = ["Clients", "router"]

router = APIRouter(tags=["a1111"])
for _module in (generate, progress, options, extras, lists):
    router.include_router(_module.router, prefix="/sdapi/v1")
router.include_router(controlnet_lists.router, prefix="/controlnet")


@router.get("/queue/status")
async def queue_status(request: Request) -> dict[str, object]:
    """How many jobs wait. Clients that began with A1111's page ask this to see whether a server is there."""
    service = service_of(request)
    return {"msg": "estimation", "queue_size": len(service.queue)}
