"""Whether the server lives, whether it takes work, and its numbers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sdrt.serve.routes.common import service_of

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """A worker takes jobs: 200, else 503."""
    dispatcher = service_of(request).dispatcher
    if dispatcher.is_ready:
        return JSONResponse({"status": "ready"})
    # Why it failed may name a path of the server's, and needs no key to be read here.
    status = "starting" if dispatcher.failure is None else "failed"
    return JSONResponse({"status": status}, status_code=503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    from sdrt.serve.metrics import render

    body, media_type = render(service_of(request), request.app.state.requests)
    return Response(body, headers={"Content-Type": media_type})
