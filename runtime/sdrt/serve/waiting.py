"""Waiting for a job on behalf of a client, which may go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import ParamSpec, TypeVar

from fastapi import Request

from sdrt.serve.errors import ServeError, of_failure
from sdrt.serve.job import Job, Status
from sdrt.serve.service import Service
from sdrt.serve.task import Made, Progress

__all__ = ["SILENCE", "SILENT", "begun", "made_or_raise", "side_work", "wait_for", "with_pauses"]

SILENT = ": waiting\n\n"
"""A comment in a stream of events, which keeps proxies from closing a connection on which nothing happens."""
SILENCE = 15.0
"""Seconds without an event before it. Proxies often wait for a minute, some for half of one."""
P = ParamSpec("P")
T = TypeVar("T")


async def wait_for(
    request: Request,
    service: Service,
    job: Job,
    fields: Mapping[str, str] | None = None,
    *,
    keeps: bool = False,
) -> Made:
    """The result of a job. The job is cancelled if the client goes away.

    `fields` has the API's names of settings that it calls otherwise. With `keeps`, the job can be asked for later.

    Raises:
        ServeError: the job failed, was cancelled, or nobody waits for it any more.
    """
    try:
        await _unless_gone(request, job.over())
    finally:
        if not job.status.is_final:
            service.cancel(job)
    if not (keeps and job.made):
        service.forget(job)
    made = made_or_raise(job, fields)
    request.state.worker_seconds = made.seconds
    return made


async def begun(
    request: Request, service: Service, job: Job, fields: Mapping[str, str] | None = None
) -> AsyncIterator[Progress | None]:
    """Wait for the first step of a job, at most `SILENCE` seconds. Returns its steps, also the first.

    Between the steps there is None after each `SILENCE` seconds without one. A job that cannot be made usually fails
    before its first step, and its error is then the answer, with its status. The job is cancelled if the client goes
    away meanwhile.

    Raises:
        ServeError: the job failed, was cancelled, or nobody waits for it any more.
    """
    steps = with_pauses(job.steps(), SILENCE)
    found: list[Progress | None] = []

    async def first() -> None:
        async for step in steps:
            found.append(step)
            return

    try:
        await _unless_gone(request, first())
    finally:
        if not found:
            service.cancel(job)
    if not found:
        service.forget(job)
        made_or_raise(job, fields)
    return _joined(found, steps)


async def _joined(
    first: list[Progress | None], rest: AsyncIterator[Progress | None]
) -> AsyncIterator[Progress | None]:
    for step in first:
        yield step
    async for step in rest:
        yield step


async def with_pauses(steps: AsyncIterator[T], seconds: float) -> AsyncIterator[T | None]:
    """Yield what comes, and None after each `seconds` seconds without anything."""
    coming: asyncio.Future[list[T]] = asyncio.ensure_future(_next(steps))
    try:
        while True:
            await asyncio.wait((coming,), timeout=seconds)
            if not coming.done():
                yield None
                continue
            if not (found := coming.result()):
                return
            coming = asyncio.ensure_future(_next(steps))
            yield found[0]
    finally:
        coming.cancel()
        with suppress(asyncio.CancelledError):
            await coming


async def _next(steps: AsyncIterator[T]) -> list[T]:
    """What comes next. Empty at the end."""
    async for step in steps:
        return [step]
    return []


async def _unless_gone(request: Request, wanted: Coroutine[None, None, T]) -> T | None:
    """What `wanted` returns. None if the client goes away before."""
    found, gone = asyncio.ensure_future(wanted), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((found, gone), return_when=asyncio.FIRST_COMPLETED)
        return found.result() if found.done() else None
    finally:
        for one in (found, gone):
            one.cancel()
        await asyncio.wait((found, gone))


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
    raise _client_gone()


async def side_work(
    request: Request, service: Service, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do `work` in the server itself, and return what it returns. It is not begun if the client goes away first.

    Raises:
        ServeError: too much such work waits, or the client has gone away.
    """
    done: list[T] = []

    async def do() -> None:
        done.append(await service.side_work.do(work, *args, **kwargs))

    await _unless_gone(request, do())
    if not done:
        raise _client_gone()
    return done[0]


def _client_gone() -> ServeError:
    return ServeError(499, "the client has gone away", code="client_closed_request")


async def _gone(request: Request) -> None:
    """Wait until the client closes its connection."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
