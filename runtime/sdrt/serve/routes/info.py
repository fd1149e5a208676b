"""What users can choose from, and what an image's file says of its making. The page uses both."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from sdrt.errors import SdrtError
from sdrt.serve.errors import ServeError
from sdrt.serve.facts import offered
from sdrt.serve.file_settings import read_file
from sdrt.serve.routes.common import service_of
from sdrt.serve.routes.jobs import JobRequest
from sdrt.serve.waiting import side_work

__all__ = ["router"]

router = APIRouter(tags=["info"])
_FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/info")
async def info(request: Request) -> dict[str, Any]:
    """The models with their defaults, the schedulers, the LoRAs by their names, and the server's limits."""
    try:
        return await asyncio.to_thread(offered, service_of(request))
    except SdrtError as error:
        service = service_of(request)
        message = str(error).replace(str(service.lora_dir), "the folder of LoRAs")
        raise ServeError(500, message, code=type(error).__name__) from None


@router.post("/metadata", openapi_extra=_FILE)
async def metadata(request: Request) -> dict[str, Any]:
    """How an image was made. The body is its file, or a text file with the same text.

    `request` has the fields of a job that would make it again, and `differences` what that job would not do.
    """
    service, data = service_of(request), await request.body()
    return await side_work(
        request,
        service,
        read_file,
        data,
        fields=JobRequest.model_fields.keys(),
        models=service.model_names,
        pixels=service.limits.pixels,
    )
