"""Images by their address. As with OpenAI's, whoever has the address needs no key, and it ends with the image."""

from __future__ import annotations

import hashlib
import hmac

from fastapi import APIRouter, Request
from starlette.responses import Response

from sdrt.serve.errors import ServeError
from sdrt.serve.job import Job
from sdrt.serve.routes.common import service_of
from sdrt.serve.service import Service

__all__ = ["router", "url_of"]

router = APIRouter()


def url_of(request: Request, job: Job, index: int) -> str:
    """The address of an image of a job, on the server that `request` was sent to."""
    signature = _signature(service_of(request), job.id, index)
    url = request.url_for("image_file", job_id=job.id, index=str(index))
    return str(url.include_query_params(signature=signature))


@router.get("/v1/images/files/{job_id}/{index}", name="image_file")
async def image_file(request: Request, job_id: str, index: int, signature: str = "") -> Response:
    """An image that was asked for with `response_format` url."""
    service = service_of(request)
    known = _signature(service, job_id, index)
    # The log has paths, so they alone must not lead to an image.
    if not hmac.compare_digest(known.encode(), signature.encode("utf-8", "replace")):
        raise _none()
    job = service.signed_job(job_id)
    if job is None or job.made is None or not 0 <= index < len(job.made.images):
        raise _none()
    headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
    media_type = job.task.file_format.media_type
    return Response(job.made.images[index].data, media_type=media_type, headers=headers)


def _none() -> ServeError:
    return ServeError(404, "there is no such image, or no longer", code="image_not_found")


def _signature(service: Service, job_id: str, index: int) -> str:
    text = f"{job_id}/{index}".encode("utf-8", "replace")
    return hmac.new(service.secret, text, hashlib.sha256).hexdigest()
