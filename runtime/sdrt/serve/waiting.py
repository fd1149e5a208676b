"""Waiting for a job on behalf of a client, which may go away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from fastapi import Request

from sdrt.serve.errors import ServeError, of_failure
from sdrt.serve.job import Job, Status
from sdrt.serve.service import Service
from sdrt.serve.task import Made

__all__ = ["made_or_raise", "wait_for"]


async def wait_for(
    request: Request, service: Service, job: Job, fields: Mapping[str, str] | None = None
) -> Made:
    """The result of a job. The job is cancelled if the client goes away.

    `fields` has the API's names of settings that it calls otherwise.

    Raises:
        ServeError: the job failed, was cancelled, or nobody waits for it any more.
    """
    over = asyncio.ensure_future(job.over())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((over, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in (over, gone):
            one.cancel()
        for one in (over, gone):
            with suppress(asyncio.CancelledError):
                await one
        if not job.status.is_final:
            service.cancel(job)
    service.forget(job)
    made = made_or_raise(job, fields)
    request.state.worker_seconds = made.seconds
    return made


def made_or_raise(job: Job, fields: Mapping[str, str] | None = None) -> Made:
    """The result of a job that is over.

    Raises:
        ServeError: it has none.
    """
    if job.made is not None:
        return job.made
    if job.failure is not None:
        raise of_failure(job.failure, fields)
    if job.status is Status.CANCELLED:
        raise ServeError(409, "the job was cancelled", code="cancelled")
    raise ServeError(499, "the client has gone away", code="client_closed_request")


async def _gone(request: Request) -> None:
    """Wait until the client closes its connection."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
