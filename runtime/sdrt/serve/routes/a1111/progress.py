"""`progress`, `interrupt` and `skip`, of the caller's own images."""

from __future__ import annotations

import base64
import time
from typing import Any

from fastapi import APIRouter, Request

from sdrt.serve.job import Job
from sdrt.serve.routes.a1111.clients import Run, client_state
from sdrt.serve.routes.a1111.info import timestamp
from sdrt.serve.routes.common import service_of
from sdrt.serve.service import Service

__all__ = ["router"]

router = APIRouter()

_LEAST = 0.01
"""A1111's progress at the start, which is not 0 so that clients see that it works."""
_IDLE: dict[str, Any] = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "",
    "job_count": 0,
    "job_timestamp": "0",
    "job_no": 0,
    "sampling_step": 0,
    "sampling_steps": 0,
}


@router.get("/progress")
async def progress(request: Request, skip_current_image: bool = False) -> dict[str, Any]:
    """How far the oldest run of this client is, with its newest preview."""
    run, service = client_state(request).current, service_of(request)
    job = None if run is None else run.current
    if run is None or job is None:
        return _described(0.0, 0.0, _IDLE)
    share = min(1.0, _LEAST + run.share)
    elapsed = time.time() - (job.started or run.began)
    preview = None if skip_current_image or job.preview is None else base64.b64encode(job.preview).decode()
    waits = _waiting(service, job)
    return _described(share, 0.0 if waits else elapsed / share - elapsed, _state(run, job), preview, waits)


def _described(
    share: float, left: float, state: dict[str, Any], preview: str | None = None, text: str | None = None
) -> dict[str, Any]:
    return {
        "progress": share,
        "eta_relative": left,
        "state": state,
        "current_image": preview,
        "textinfo": text,
    }


def _waiting(service: Service, job: Job) -> str | None:
    before = service.position(job)
    return None if before is None else f"Waiting: {before} jobs are before this one"


def _state(run: Run, job: Job) -> dict[str, Any]:
    step = job.progress
    return {
        "skipped": run.is_skipped,
        "interrupted": run.is_interrupted,
        "stopping_generation": False,
        "job": run.task_id or job.id,
        "job_count": len(run.jobs),
        "job_timestamp": timestamp(run.began),
        "job_no": run.jobs.index(job),
        "sampling_step": step.step if step else 0,
        "sampling_steps": (step.num_steps if step else None) or _asked_steps(job),
    }


def _asked_steps(job: Job) -> int:
    return int(job.task.settings.get("num_inference_steps") or 0)


@router.post("/interrupt")
async def interrupt(request: Request) -> dict[str, Any]:
    """Stop the run of this client that is made now, or its oldest. Batches that are done are answered."""
    run, service = client_state(request).current, service_of(request)
    if run is not None:
        run.is_interrupted = True
        for job in run.jobs:
            service.cancel(job)
    return {}


@router.post("/skip")
async def skip(request: Request) -> None:
    """Stop the batch of this client that is made now. The others of its run go on."""
    run, service = client_state(request).current, service_of(request)
    if run is not None and run.current is not None:
        run.is_skipped = True
        service.cancel(run.current)
