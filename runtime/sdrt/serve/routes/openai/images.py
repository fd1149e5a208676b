"""`/v1/images/generations`, `/v1/images/edits` and `/v1/images/variations`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sdrt.errors import RequestError
from sdrt.images.decoding import Subject, opened
from sdrt.serve.asked import image_task, lora_files
from sdrt.serve.body import StrictRoute
from sdrt.serve.errors import ServeError
from sdrt.serve.job import Job
from sdrt.serve.routes.common import client_of, service_of
from sdrt.serve.routes.openai.answers import answer, blocks, unless_blocked
from sdrt.serve.routes.openai.fields import FIELDS, Asked, Edit, Generation, Prompted, Variation
from sdrt.serve.routes.openai.files import url_of
from sdrt.serve.routes.openai.forms import MOST_IMAGES, read_form
from sdrt.serve.routes.openai.masks import mask_file
from sdrt.serve.routes.openai.stream import JobStream
from sdrt.serve.waiting import begun, wait_for

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)


def _form_of(kind: type[Asked], files: dict[str, Any]) -> dict[str, Any]:
    """The description of a form, which FastAPI does not read itself."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    schema["properties"] |= files
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


# As FastAPI describes files itself.
_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
_FILES = {"type": "array", "items": _FILE, "maxItems": MOST_IMAGES}


@router.post("/v1/images/generations")
async def generate(request: Request, body: Generation) -> Response:
    """Make images of a prompt."""
    return await _made(request, body, {}, kind="image_generation")


@router.post(
    "/v1/images/edits", openapi_extra=_form_of(Edit, {"image": _FILE, "image[]": _FILES, "mask": _FILE})
)
async def edit(request: Request) -> Response:
    """Change an image, all of it or where the mask is transparent. Further images are image prompts."""
    form = await read_form(request, takes=("image", "image[]", "mask"))
    asked, images, mask = form.asked(Edit), form.images(), form.mask()
    given: dict[str, Any] = {"image": images[0], "ip_adapter_image": images[1:] or None}
    if mask is not None:
        most = service_of(request).limits.pixels
        given["mask_image"] = await asyncio.to_thread(mask_file, mask, most)
    try:
        return await _made(request, asked, given, kind="image_edit")
    except ServeError as error:
        raise _of_references(error) from None


@router.post("/v1/images/variations", openapi_extra=_form_of(Variation, {"image": _FILE}))
async def vary(request: Request) -> Response:
    """Make images that are like another."""
    form = await read_form(request, takes=("image",))
    asked, images = form.asked(Variation), form.images()
    if len(images) > 1:
        raise ServeError(400, f"the form has 'image' {len(images)} times", field="image")
    return await _made(request, asked, {"image": images[0]}, kind="image_variation")


def _of_references(error: ServeError) -> ServeError:
    """An error about image prompts in the words of this API."""
    if not error.message.startswith("ip_adapter_image"):
        return error
    reason = error.message.partition(":")[0].removeprefix("ip_adapter_image ")
    message = (
        f"image: the first image is edited, and another one {reason}: give one image, or choose another model"
    )
    return ServeError(error.status, message, field=error.field, code=error.code)


async def _made(request: Request, asked: Asked, given: dict[str, Any], *, kind: str) -> Response:
    """Make the images, and answer when they are done, or with events meanwhile. `given` are the user's images."""
    service = service_of(request)
    wanted = [one.weights for one in asked.lora or ()]
    settings = {**asked.settings(), **given, "lora": await lora_files(service, wanted, "lora")}
    streams = isinstance(asked, Prompted) and asked.stream
    task = await image_task(
        service,
        settings,
        model=asked.model,
        file_format=asked.file_format,
        previews=(asked.partial_images or 0) if isinstance(asked, Prompted) else 0,
        fields=FIELDS,
    )
    tokens = _tokens(given)
    job = service.submit(replace(task, counts_tokens=True), client_of(request))
    if streams and isinstance(asked, Prompted):
        steps = await begun(request, service, job, FIELDS)
        return JobStream(service, job, steps, asked, kind=kind, given_tokens=tokens)
    return await _answered(request, asked, job, tokens)


async def _answered(request: Request, asked: Asked, job: Job, tokens: int) -> Response:
    keeps = asked.response_format == "url"
    made = unless_blocked(await wait_for(request, service_of(request), job, FIELDS, keeps=keeps))
    return JSONResponse(answer(asked, job, made, tokens, lambda index: url_of(request, job, index)))


def _tokens(given: dict[str, Any]) -> int:
    """What the user's images, which were read before, count in `usage`."""
    files = [given[name] for name in ("image", "mask_image") if name in given]
    return sum(_blocks(data) for data in (*files, *(given.get("ip_adapter_image") or ())))


def _blocks(data: bytes) -> int:
    try:
        with opened(data, Subject(name="image", argument="image"), decodes=False) as image:
            return blocks(image.width, image.height)
    except RequestError as error:
        raise ServeError(400, str(error), field="image") from None
