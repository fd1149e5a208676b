"""Makes the images of a task with a pipeline. `sdrt serve`'s workers and `sdrt batch` share it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdrt.common.cancelling import Cancel
from sdrt.errors import RequestError, SdrtError
from sdrt.images.files import FORMATS, Format, save
from sdrt.request.request import Request
from sdrt.request.setting import settings_of
from sdrt.serve.task import Failure, FileFormat, ImageTask, Made, MadeImage, Progress
from sdrt.serve.tokens import prompt_tokens

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdrt.pipeline import StableDiffusionPipeline
    from sdrt.run.planned import PlannedRequest
    from sdrt.run.result import GenerationStep, StableDiffusionPipelineOutput

__all__ = ["encoded", "failure_of", "make"]

Emit = Callable[[Progress], object]
_PREVIEW_SIDE = 512  # pixels of the longer side
_CALL = ("scheduler", "spacing")
"""The settings of a call that are not of its request."""


def make(
    pipeline: StableDiffusionPipeline,
    tasks: Sequence[ImageTask],
    *,
    emit: Emit = lambda progress: None,
    cancel: Cancel | None = None,
    notices: Sequence[str] = (),
) -> list[Made]:
    """Make the images of one task, or of several that share a run. Returns a result for each.

    Args:
        pipeline: the pipeline of the tasks' model.
        tasks: tasks of which each shares its run with the first.
        emit: receives the progress after each step.
        cancel: stops the run when it is set.
        notices: a list to which the pipeline's messages are added during the run.

    Raises:
        RequestError, ModelError, OutOfMemoryError, ProviderError, RunCancelledError.
    """
    started = time.perf_counter()
    request = request_of(tasks)
    named = {name: tasks[0].settings.get(name) for name in _CALL}
    planned = pipeline.plan(request, **named)
    _check_size(planned.request.completed, tasks[0].max_pixels)
    output = _run(pipeline, planned, max(task.previews for task in tasks), emit, cancel)
    seconds = time.perf_counter() - started
    parts = zip(tasks, _parts(len(output.seeds), len(tasks)), strict=True)
    made = [(task, tuple(_files(output, part, task.file_format))) for task, part in parts]
    return [
        Made(
            images=images,
            settings=_told(output.request, planned),
            seconds=seconds,
            skipped_calls=output.skipped_calls,
            notices=(*notices, *_left_out(images, task.file_format)),
            prompt_tokens=prompt_tokens(pipeline.model, task),
        )
        for task, images in made
    ]


def request_of(tasks: Sequence[ImageTask]) -> Request:
    """The request of tasks that share a run. Raises `RequestError` if a setting is wrong."""
    settings = {name: value for name, value in tasks[0].settings.items() if name not in _CALL}
    if len(tasks) > 1:
        settings["prompt"] = [task.settings["prompt"] for task in tasks]
        settings["seed"] = [task.settings["seed"] for task in tasks]
        if settings.get("negative_prompt") is not None:
            settings["negative_prompt"] = [task.settings["negative_prompt"] for task in tasks]
    return Request(**settings)


def _check_size(request: Request, max_pixels: int | None) -> None:
    """Check the size after the model's defaults were filled in.

    Raises:
        RequestError: an image has too many pixels.
    """
    width, height, scale = request.width or 0, request.height or 0, request.hires_scale or 1.0
    if request.outpaint is not None:
        width, height = _outpainted(request)
    if max_pixels is not None and width * height * scale**2 > max_pixels:
        times = "" if scale == 1 else f", enlarged {scale:g} times,"
        raise RequestError.expected(
            f"an image of {width}x{height}{times} has too many pixels",
            f"at most {max_pixels}",
            argument="width",
        )


def _outpainted(request: Request) -> tuple[int, int]:
    """The width and height of an image with its new borders."""
    image = request.image[0]
    width, height = request.outpaint.of(image.shape[1], image.shape[0])
    return int(width), int(height)


def _run(
    pipeline: StableDiffusionPipeline,
    planned: PlannedRequest,
    previews: int,
    emit: Emit,
    cancel: Cancel | None,
) -> StableDiffusionPipelineOutput:
    from sdrt.run.result import StableDiffusionPipelineOutput

    shown = _Previews(pipeline, previews, planned.num_evaluations)
    for done, event in enumerate(pipeline.stream(planned, cancel=cancel), start=1):
        if isinstance(event, StableDiffusionPipelineOutput):
            return event
        emit(shown.after(event, done))
    raise AssertionError("a stream ends with its result")


@dataclass
class _Previews:
    """Decides after which steps a preview is made."""

    pipeline: StableDiffusionPipeline
    most: int
    num_steps: int | None
    made: int = 0

    def after(self, step: GenerationStep, done: int) -> Progress:
        """The progress after a step, with a preview if one is due."""
        if not self._is_due(done):
            return Progress(step=done, num_steps=self.num_steps)
        index, self.made = self.made, self.made + 1
        preview = self._image(step)
        return Progress(step=done, num_steps=self.num_steps, preview=preview, preview_index=index)

    def _is_due(self, done: int) -> bool:
        """Whether a preview is due: `most` of them, as far apart as can be, and none after the last step."""
        if not self.made < self.most:
            return False
        if self.num_steps is None:
            return True
        return done < self.num_steps and done * (self.most + 1) >= (self.made + 1) * self.num_steps

    def _image(self, step: GenerationStep) -> bytes:
        from sdrt.images.arrays import side_by_side

        image = side_by_side(self.pipeline.preview(step.denoised[:1]))
        image.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
        return encoded(image, FileFormat(metadata=False))


def _parts(images: int, tasks: int) -> Iterator[range]:
    """The indices of each task's images."""
    each = images // tasks
    for index in range(tasks):
        yield range(index * each, (index + 1) * each)


def _files(
    output: StableDiffusionPipelineOutput, part: range, file_format: FileFormat
) -> Iterator[MadeImage]:
    flagged = output.nsfw_content_detected
    for index in part:
        image: Image = output.images[index]
        text = str(output.metadata(index, batch_size=1))
        yield MadeImage(
            data=encoded(image, file_format, text if file_format.metadata else None),
            seed=output.seeds[index],
            width=image.width,
            height=image.height,
            text=text,
            flagged=None if flagged is None else flagged[index],
        )


def _left_out(images: Sequence[MadeImage], file_format: FileFormat) -> list[str]:
    """What to tell when `encoded` leaves out texts because they are too long."""
    target = FORMATS[file_format.suffix]
    if file_format.metadata and any(len(image.text) > target.max_text for image in images):
        return [
            f"the settings are too long for {target.name}'s metadata, so that the file does not have them"
        ]
    return []


def encoded(image: Image, file_format: FileFormat, text: str | None = None) -> bytes:
    """The bytes of an image's file. It has no text that is too long for the format.

    Raises:
        RequestError: the format cannot hold the image.
    """
    target = FORMATS[file_format.suffix]
    if file_format.quality is not None and "quality" in target.options:
        target = Format(
            name=target.name,
            options=target.options | {"quality": file_format.quality},
            max_side=target.max_side,
            max_text=target.max_text,
        )
    buffer = io.BytesIO()
    if text is not None and len(text) > target.max_text:
        text = None
    try:
        save(buffer, image, target, text)
    except ValueError as error:
        raise RequestError.expected(
            f"{target.name} cannot hold the image ({error})", "png", argument="output_format"
        ) from error
    return buffer.getvalue()


def _told(request: Request, planned: PlannedRequest) -> dict[str, Any]:
    """The settings of a finished run that JSON can hold."""
    values = {row.name: getattr(request, row.name) for row in settings_of(Request)}
    simple = {name: value for name, value in values.items() if isinstance(value, (str, int, float, bool))}
    scheduler = planned.scheduler
    return simple | {"scheduler": scheduler.name, "spacing": scheduler.spacing}


def failure_of(error: BaseException) -> Failure:
    """What to tell of an error. An unexpected one is named by its class, and its text stays in the log."""
    if isinstance(error, SdrtError):
        return Failure(
            kind=type(error).__name__,
            message=str(error),
            argument=error.argument,
            is_request=isinstance(error, RequestError),
        )
    if isinstance(error, MemoryError):
        return Failure(kind="OutOfMemoryError", message="out of memory")
    return Failure(kind=type(error).__name__, message=f"unexpected {type(error).__name__}")
