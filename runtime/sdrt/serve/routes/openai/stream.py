"""Server-sent events while an image is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sdrt.serve.answers import openai_error
from sdrt.serve.errors import ServeError
from sdrt.serve.job import Job
from sdrt.serve.routes.openai.answers import completed, partial, unless_blocked
from sdrt.serve.routes.openai.fields import FIELDS, Prompted
from sdrt.serve.service import Service
from sdrt.serve.task import FileFormat, Progress
from sdrt.serve.waiting import SILENT, made_or_raise

__all__ = ["JobStream"]

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class JobStream(StreamingResponse):
    """The events of a job: previews, then the images, or an error.

    The job is cancelled when the response ends before it, also if that never began to send.

    Args:
        service: the server's state.
        job: the job.
        steps: its steps from now on. None stands for a while without a step.
        asked: the request.
        kind: what the names of events begin with.
        given_tokens: what the user's images count in `usage`.
    """

    def __init__(
        self,
        service: Service,
        job: Job,
        steps: AsyncIterator[Progress | None],
        asked: Prompted,
        *,
        kind: str,
        given_tokens: int,
    ) -> None:
        super().__init__(
            _events(job, steps, asked, kind, given_tokens), media_type="text/event-stream", headers=_HEADERS
        )
        self._service, self._job = service, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.cancel(self._job)
            self._service.forget(self._job)


async def _events(
    job: Job, steps: AsyncIterator[Progress | None], asked: Prompted, kind: str, given_tokens: int
) -> AsyncIterator[str]:
    index, most = 0, asked.partial_images or 0
    async for progress in steps:
        if progress is None:
            yield SILENT
            continue
        # A job that runs again, because its worker died, makes its previews again.
        if progress.preview is not None and progress.preview_index == index < most:
            preview = await asyncio.to_thread(_in_format, progress.preview, asked.file_format)
            yield _event(f"{kind}.partial_image", partial(asked, job, index, preview))
            index += 1
    try:
        made = unless_blocked(made_or_raise(job, FIELDS))
    except ServeError as error:
        yield _event("error", openai_error(error))
        return
    for image in made.images:
        yield _event(f"{kind}.completed", completed(asked, job, made, image, given_tokens))


def _in_format(preview: bytes, file_format: FileFormat) -> bytes:
    """A preview, which is a PNG file, in the format that was asked for."""
    if file_format.suffix == ".png":
        return preview
    from sdrt.images.decoding import Subject, opened
    from sdrt.serve.make import encoded

    with opened(preview, Subject(name="preview", argument="preview")) as image:
        return encoded(image, file_format)


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"
