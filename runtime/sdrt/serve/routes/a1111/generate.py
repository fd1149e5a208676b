"""`txt2img` and `img2img`."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from sdrt.prompts.tags import tags
from sdrt.request.loras import LORA_TAGS
from sdrt.serve.asked import decoded, image_task
from sdrt.serve.body import StrictRoute
from sdrt.serve.errors import ServeError
from sdrt.serve.job import Job
from sdrt.serve.routes.a1111.clients import Client, Run, client_state
from sdrt.serve.routes.a1111.controlnet import control_settings
from sdrt.serve.routes.a1111.fields import Img2Img, Txt2Img, refuse_effects
from sdrt.serve.routes.a1111.info import info_text
from sdrt.serve.routes.a1111.model_facts import ModelFacts, facts_of
from sdrt.serve.routes.a1111.options import PREVIEW_EVERY, chosen
from sdrt.serve.routes.a1111.pictures import prepared
from sdrt.serve.routes.a1111.texts import FIELDS, prompts_of, settings_of
from sdrt.serve.routes.common import client_of, service_of
from sdrt.serve.service import Service
from sdrt.serve.task import ImageTask, Made
from sdrt.serve.waiting import wait_for

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)

_USUAL_IMAGE_SCALE = 1.5


@router.post("/txt2img")
async def txt2img(request: Request, body: Txt2Img) -> JSONResponse:
    """Make images of a text."""
    return await _answer(request, body)


@router.post("/img2img")
async def img2img(request: Request, body: Img2Img) -> JSONResponse:
    """Make images of a text and an image, or repaint a part of an image."""
    return await _answer(request, body)


async def _answer(request: Request, body: Txt2Img | Img2Img) -> JSONResponse:
    service, client = service_of(request), client_state(request)
    refuse_effects(body)
    _check_count(body, service)
    model, clip_skip = await chosen(service, client, body.override_settings, "override_settings.")
    facts = await facts_of(service, model)
    task = await _task(service, body, model, clip_skip, facts)
    jobs = _submitted(service, _batches(task, body.n_iter), client_of(request))
    if not body.override_settings_restore_afterwards:
        client.model, client.clip_skip = model, clip_skip
    run = Run(jobs=jobs, task_id=body.force_task_id)
    with _followed(service, client, run):
        made = [one for job in jobs if (one := await _made(request, service, run, job)) is not None]
    info = info_text(
        body,
        made,
        model=model,
        facts=facts,
        clip_skip=clip_skip,
        seed=task.settings["seed"],
        began=run.began,
    )
    return JSONResponse({"images": _images(body, made), "parameters": _echo(body), "info": info})


@contextmanager
def _followed(service: Service, client: Client, run: Run) -> Iterator[None]:
    """Let the client ask for the progress of a run, and stop it. Nothing of it is left afterwards."""
    client.runs.append(run)
    try:
        yield
    finally:
        client.runs.remove(run)
        for job in run.jobs:
            service.cancel(job)
            service.forget(job)


def _check_count(body: Txt2Img | Img2Img, service: Service) -> None:
    most = service.limits.images
    if body.batch_size * body.n_iter > most:
        field = "batch_size" if body.batch_size > most else "n_iter"
        count = body.batch_size * body.n_iter
        raise ServeError(
            400, f"batch_size times n_iter is {count}: this server makes at most {most} images", field=field
        )
    if body.n_iter > service.queue.bound:
        raise ServeError(
            400,
            f"n_iter is {body.n_iter}: of this server's jobs, at most {service.queue.bound} wait",
            field="n_iter",
        )


async def _task(
    service: Service, body: Txt2Img | Img2Img, model: str, clip_skip: int, facts: ModelFacts
) -> ImageTask:
    """The task of the first batch."""
    settings = settings_of(body, clip_skip)
    settings["prompt"], negative = prompts_of(body)
    _check_tags(settings["prompt"], service)
    # As in A1111, SDXL gets zeros for an empty one.
    settings["negative_prompt"] = negative or None
    settings["num_images_per_prompt"] = body.batch_size
    size = (settings["width"], settings["height"])
    _check_size(size, service)
    image = None
    if isinstance(body, Img2Img):
        settings |= await _pictures(service, body, size)
        image = settings["image"]
        settings |= _image_scale(body, facts)
    most = service.limits.pixels
    settings |= await control_settings(body.alwayson_scripts, facts, image=image, size=size, most_pixels=most)
    return await image_task(service, settings, model=model, previews=_previews(settings), fields=FIELDS)


def _check_tags(prompt: str, service: Service) -> None:
    """Check that networks of the prompt are used. A1111's answers have no place for a notice that one is not."""
    for tag in tags(prompt):
        if tag.kind not in LORA_TAGS:
            reason = f"this server has no networks of the kind {tag.kind[:64]!r}"
        elif service.lora_dir is None:
            reason = "this server has no LoRAs (sdrt serve --lora-dir)"
        else:
            continue
        raise ServeError(400, f"prompt has {tag.text[:128]}: {reason}", field="prompt", code="unsupported")


def _check_size(size: tuple[int, int], service: Service) -> None:
    """Check the size before images are brought to it. The worker checks what it makes."""
    most = service.limits.pixels
    if size[0] * size[1] > most:
        raise ServeError(
            400,
            f"width times height is {size[0] * size[1]}: this server makes at most {most} pixels",
            field="width",
        )


def _previews(settings: dict[str, Any]) -> int:
    steps: int = settings["num_inference_steps"]
    return min(steps // PREVIEW_EVERY, 100)


async def _pictures(service: Service, body: Img2Img, size: tuple[int, int]) -> dict[str, Any]:
    """The image and the mask."""
    if len(body.init_images) != 1:
        count = len(body.init_images)
        raise ServeError(
            400 if count else 404,
            f"init_images has {count} images: this server starts from one",
            field="init_images",
        )
    image = decoded(body.init_images[0], "init_images")
    mask = decoded(body.mask, "mask") if body.mask else None
    crops = mask is not None and body.inpaint_full_res
    image, mask = await asyncio.to_thread(
        prepared,
        image,
        mask,
        resize_mode=body.resize_mode,
        size=None if crops else size,
        invert=bool(body.inpainting_mask_invert),
        content=body.inpainting_fill,
        most_pixels=service.limits.pixels,
    )
    return {"image": image, "mask_image": mask}


def _image_scale(body: Img2Img, facts: ModelFacts) -> dict[str, float]:
    """`image_cfg_scale`, which other models than those that follow instructions do not read, here as in A1111."""
    given = body.image_cfg_scale
    if facts.follows_instructions:
        return {"image_guidance_scale": _USUAL_IMAGE_SCALE if given is None else given}
    if facts.is_known or given in (None, _USUAL_IMAGE_SCALE):
        return {}
    # The worker says whether the model takes it.
    return {"image_guidance_scale": given or 0.0}


def _batches(task: ImageTask, count: int) -> list[ImageTask]:
    """A task for each batch. Seeds count on from batch to batch."""
    seed, size = task.settings["seed"], task.settings["num_images_per_prompt"]
    return [replace(task, settings={**task.settings, "seed": seed + index * size}) for index in range(count)]


def _submitted(service: Service, tasks: Sequence[ImageTask], client: str) -> list[Job]:
    """Accept all batches or none."""
    jobs: list[Job] = []
    try:
        for task in tasks:
            jobs.append(service.submit(task, client))
    except ServeError:
        for job in jobs:
            service.cancel(job)
        raise
    return jobs


async def _made(request: Request, service: Service, run: Run, job: Job) -> Made | None:
    """The result of a batch. None if the client has stopped it."""
    try:
        return await wait_for(request, service, job, FIELDS)
    except ServeError as error:
        if error.code == "cancelled" and (run.is_interrupted or run.is_skipped):
            return None
        raise


def _images(body: Txt2Img | Img2Img, made: Sequence[Made]) -> list[str]:
    if not body.send_images:
        return []
    return [base64.b64encode(image.data).decode() for one in made for image in one.images]


def _echo(body: Txt2Img | Img2Img) -> dict[str, Any]:
    """The request with A1111's defaults."""
    echoed = body.model_dump(exclude=set(body.others))
    if isinstance(body, Img2Img) and not body.include_init_images:
        echoed |= {"init_images": None, "mask": None}
    return echoed
