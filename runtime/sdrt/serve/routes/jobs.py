"""sdrt's own API: jobs that are accepted at once, followed by their events, and fetched when they are done."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field, create_model
from starlette.responses import JSONResponse, Response, StreamingResponse

from sdrt.request.pairs import Corner, Size
from sdrt.request.setting import Setting
from sdrt.request.table import TABLE
from sdrt.serve import waiting
from sdrt.serve.asked import decoded, image_task, lora_files
from sdrt.serve.body import StrictRoute
from sdrt.serve.errors import ServeError, of_failure
from sdrt.serve.job import Job, Status
from sdrt.serve.routes.common import Strict, client_of, service_of
from sdrt.serve.service import Service
from sdrt.serve.task import IMAGES, SUFFIXES, FileFormat, MadeImage, Progress
from sdrt.serve.waiting import with_pauses

__all__ = ["router"]

router = APIRouter(tags=["jobs"], route_class=StrictRoute)

_LEFT_OUT = frozenset(
    # Paths of the server's, what only programs pass, and what the server decides.
    {
        *("lora", "lora_dir", "refiner", "refiner_config", "refiner_prediction_type", "hires_refiner"),
        *("refiner_switch", "refiner_switch_by_steps", "max_size", "output_type", "safety_checker"),
        *("prompt", *IMAGES),
    }
)
_LOOK = 1.0
"""Seconds between looks at the place of a waiting job in the queue, while its events are sent."""
_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Lora(Strict):
    """A LoRA by its name in the server's folder."""

    name: str
    weight: float = 1.0
    text_encoder_weight: float | None = None

    @property
    def weights(self) -> tuple[str, float, float]:
        """Its name, and its weights in the text encoders and in the U-Net."""
        text = self.weight if self.text_encoder_weight is None else self.text_encoder_weight
        return self.name, text, self.weight


def _type_of(row: Setting) -> Any:
    """The type of a setting in JSON."""
    if row.kind in (Size, Corner):
        return Annotated[list[int], Field(min_length=2, max_length=2)]
    kind: Any = Literal[row.choices] if row.choices else row.kind
    if row.max_items is None:
        return kind
    return list[kind] | kind if row.takes_one else list[kind]


def _fields() -> dict[str, Any]:
    """The fields of a job that are settings, from the table."""
    rows = [row for row in TABLE if row.kind is not None and row.name not in _LEFT_OUT]
    return {row.name: (_type_of(row) | None, Field(None, description=row.about)) for row in rows}


class _JobBase(Strict):
    prompt: str = Field(description="What to make.")
    model: str | None = Field(
        None, description="The name of a model of this server. The default is its first."
    )
    image: str | None = Field(None, description="An image to start from, as base64.")
    mask_image: str | None = Field(None, description="Where to repaint the image: white, as base64.")
    control_image: list[str] | None = Field(None, description="Images for the ControlNets, as base64.")
    ip_adapter_image: list[str] | None = Field(None, description="Image prompts, as base64.")
    ip_adapter_masks: list[str] | None = Field(None, description="Where they are seen, as base64.")
    lora: list[Lora] | None = Field(None, description="LoRAs by their names.", max_length=16)
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_quality: Annotated[int, Field(ge=1, le=100)] | None = None
    metadata: bool = Field(True, description="Whether the file says how the image was made.")
    previews: Annotated[int, Field(ge=0, le=100)] = Field(0, description="How many previews the events have.")
    priority: Annotated[int, Field(ge=-10, le=10)] = Field(
        0, description="Higher ones run first. A value above 0 needs a key that may have one."
    )


JobRequest = create_model("JobRequest", __base__=_JobBase, **_fields())
"""The body of `POST /jobs`: settings by sdrt's names, and how to return the images."""


@router.post("/jobs", status_code=202)
async def create(request: Request, body: JobRequest) -> JSONResponse:  # type: ignore[valid-type]
    """Accept a job. The answer comes at once."""
    service, asked = service_of(request), body.model_dump()  # type: ignore[attr-defined]
    settings = {
        row.name: asked[row.name] for row in TABLE if row.name in asked and row.name not in ("lora", *IMAGES)
    }
    for name in IMAGES:
        settings[name] = _images(name, asked[name])
    wanted = [one.weights for one in body.lora or ()]  # type: ignore[attr-defined]
    settings["lora"] = await lora_files(service, wanted, "lora")
    file_format = FileFormat(
        suffix=SUFFIXES[asked["output_format"]], quality=asked["output_quality"], metadata=asked["metadata"]
    )
    task = await image_task(
        service, settings, model=asked["model"], file_format=file_format, previews=asked["previews"]
    )
    job = service.submit(task, client_of(request), asked["priority"])
    return JSONResponse(describe(service, job), 202, headers={"Location": f"/jobs/{job.id}"})


def _images(name: str, given: str | list[str] | None) -> Any:
    if given is None:
        return None
    return decoded(given, name) if isinstance(given, str) else [decoded(one, name) for one in given]


@router.get("/jobs")
async def listed(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> JSONResponse:
    """The jobs of this client, the newest first."""
    service = service_of(request)
    jobs = [
        describe(service, job) for job, _ in zip(service.jobs(client_of(request)), range(limit), strict=False)
    ]
    return JSONResponse({"jobs": jobs})


@router.get("/jobs/{job_id}")
async def status(request: Request, job_id: str) -> JSONResponse:
    """What has become of a job."""
    service = service_of(request)
    return JSONResponse(describe(service, service.job(job_id, client_of(request))))


@router.get("/jobs/{job_id}/events")
async def events(request: Request, job_id: str) -> StreamingResponse:
    """The job's events as they happen: `status`, `step` with `preview`, and at last `done`, `failed` or `cancelled`.

    `status` comes again when the job's place in the queue changes, and a comment after a while without an event.
    """
    service = service_of(request)
    job = service.job(job_id, client_of(request))
    return StreamingResponse(_events(service, job), media_type="text/event-stream", headers=_STREAM)


@router.get("/jobs/{job_id}/images/{index}")
async def image(request: Request, job_id: str, index: int) -> Response:
    """An image of a finished job, as a file."""
    job = service_of(request).job(job_id, client_of(request))
    if job.made is None:
        raise _no_images(job)
    if not 0 <= index < len(job.made.images):
        raise ServeError(404, f"the job has {len(job.made.images)} images, counted from 0", field="index")
    return Response(job.made.images[index].data, media_type=job.task.file_format.media_type)


@router.get("/jobs/{job_id}/result")
async def result(request: Request, job_id: str) -> JSONResponse:
    """The images of a finished job as base64, with their settings."""
    job = service_of(request).job(job_id, client_of(request))
    if job.made is None:
        raise _no_images(job)
    images = [
        described | {"b64_json": base64.b64encode(one.data).decode()}
        for one, described in zip(job.made.images, _described_images(job), strict=True)
    ]
    return JSONResponse({**_result(job), "images": images})


@router.delete("/jobs/{job_id}")
async def cancel(request: Request, job_id: str) -> JSONResponse:
    """Cancel a job that is not over, or forget one that is."""
    service = service_of(request)
    job = service.job(job_id, client_of(request))
    if job.status.is_final:
        service.forget(job)
    else:
        service.cancel(job)
    return JSONResponse(describe(service, job))


def _no_images(job: Job) -> ServeError:
    if job.failure is not None:
        return of_failure(job.failure)
    return ServeError(409, f"the job is {job.status.value}, and has no images", code="not_done")


def describe(service: Service, job: Job) -> dict[str, Any]:
    """A job as JSON."""
    step = job.progress
    described: dict[str, Any] = {
        "id": job.id,
        "status": "cancelling" if job.is_cancelling and not job.status.is_final else job.status.value,
        "model": job.task.model,
        "position": _place(service, job)[1],
        "step": step.step if step else 0,
        "num_steps": step.num_steps if step else None,
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
        "seconds": _seconds(job),
        "error": None,
    }
    if job.failure is not None:
        error = of_failure(job.failure)
        described["error"] = {"detail": error.message, "field": error.field, "code": error.code}
    return described | (_result(job) if job.made is not None else {})


def _seconds(job: Job) -> float | None:
    if job.started is None:
        return None
    return round((job.finished or time.time()) - job.started, 3)


def _result(job: Job) -> dict[str, Any]:
    assert job.made is not None
    return {
        "images": _described_images(job),
        "settings": dict(job.made.settings),
        "skipped_calls": job.made.skipped_calls,
        "notices": list(job.made.notices),
    }


def _described_images(job: Job) -> list[dict[str, Any]]:
    assert job.made is not None
    return [_described(job, index, one) for index, one in enumerate(job.made.images)]


def _described(job: Job, index: int, made: MadeImage) -> dict[str, Any]:
    return {
        "url": f"/jobs/{job.id}/images/{index}",
        "seed": made.seed,
        "width": made.width,
        "height": made.height,
        "parameters": made.text,
        "nsfw_content_detected": made.flagged,
    }


async def _events(service: Service, job: Job) -> AsyncIterator[str]:
    """The events. Also the status when it changes without a step, and a comment after a silence."""
    loop = asyncio.get_running_loop()
    yield _event("status", describe(service, job))
    told, last = _place(service, job), loop.time()
    async for progress in with_pauses(job.steps(), _LOOK):
        place = _place(service, job)
        if progress is not None:
            yield _event("step", _step(job, progress))
        elif place != told:
            yield _event("status", describe(service, job))
        elif loop.time() - last >= waiting.SILENCE:
            yield waiting.SILENT
        else:
            continue
        told, last = place, loop.time()
    yield _event(job.status.value, describe(service, job))


def _place(service: Service, job: Job) -> tuple[Status, int | None]:
    return job.status, service.position(job) if job.status is Status.QUEUED else None


def _step(job: Job, progress: Progress) -> dict[str, Any]:
    told: dict[str, Any] = {
        "step": progress.step,
        "num_steps": progress.num_steps,
        "seconds": _seconds(job),
    }
    if progress.preview is not None:
        told["preview"] = base64.b64encode(progress.preview).decode()
        told["preview_index"] = progress.preview_index
    return told


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
