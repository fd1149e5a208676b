"""What goes to a worker and what comes back. All of it is pickled, because workers are other processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["IMAGES", "SUFFIXES", "Failure", "FileFormat", "ImageTask", "Made", "MadeImage", "Progress"]

IMAGES = ("image", "mask_image", "control_image", "ip_adapter_image", "ip_adapter_masks")
"""The settings that take images. In a task they are the bytes of files."""
SUFFIXES: Mapping[str, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""The extensions of the formats that requests name."""

_OWN = ("prompt", "negative_prompt", "seed")
"""The settings that images of one run may differ in."""


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """How an image becomes a file.

    Attributes:
        suffix: ".png", ".jpg" or ".webp".
        quality: from 1 to 100, for JPEG and WebP. None for what `sdrt generate` uses.
        metadata: whether the file says how the image was made.
    """

    suffix: str = ".png"
    quality: int | None = None
    metadata: bool = True

    @property
    def media_type(self) -> str:
        """The type of its files, such as "image/png"."""
        return next(f"image/{name}" for name, suffix in SUFFIXES.items() if suffix == self.suffix)


@dataclass(frozen=True, kw_only=True)
class ImageTask:
    """Images to make with one call of a pipeline.

    Attributes:
        model: the name under which the server has the model.
        settings: arguments of the call. Images are the bytes of files, and the seed is a number.
        file_format: the format of the images.
        previews: how many previews to make, spread over the steps.
        counts_tokens: whether to count the tokens of the prompts.
        max_pixels: the most pixels of an image. None for the runtime's own limits.
    """

    model: str
    settings: Mapping[str, Any]
    file_format: FileFormat = FileFormat()
    previews: int = 0
    counts_tokens: bool = False
    max_pixels: int | None = None

    def shares_run_with(self, other: ImageTask) -> bool:
        """Whether one call can make the images of both. Pixels then differ from those of two calls by rounding."""
        return (
            self.model == other.model
            and self.is_alone
            and other.is_alone
            and self._common() == other._common()
        )

    @property
    def files(self) -> list[bytes]:
        """The user's images."""
        return [data for value in self.settings.values() if _is_file(value) for data in _flat(value)]

    def without_files(self) -> ImageTask:
        """The task without the user's images, which take memory."""
        kept = {name: value for name, value in self.settings.items() if not _is_file(value)}
        return replace(self, settings=kept)

    @property
    def is_alone(self) -> bool:
        """Whether this is one image of a text, without tags that change the model, and without images of the user."""
        values = self.settings
        texts = [str(values.get(name) or "") for name in _OWN[:2]]
        return (
            isinstance(values.get("prompt"), str)
            and isinstance(values.get("seed"), int)
            and values.get("num_images_per_prompt", 1) == 1
            and not any("<" in text for text in texts)
            # Previews show the first image of a run, which may be another client's.
            and not self.previews
            and not any(isinstance(value, (bytes, list)) for value in values.values())
        )

    @property
    def kind(self) -> str:
        """A text that is equal for tasks that take equally long: their model and settings without texts and seeds."""
        return repr((self.model, sorted((name, repr(value)) for name, value in self._common().items())))

    def _common(self) -> dict[str, Any]:
        given = {name: value for name, value in self.settings.items() if name not in _OWN}
        # A missing negative prompt is not an empty one: SDXL takes zeros for it.
        return given | {"has_negative": self.settings.get("negative_prompt") is not None}


def _is_file(value: Any) -> bool:
    """Whether a setting is the content of a file, or of several."""
    return isinstance(value, bytes) or (isinstance(value, list) and any(map(_is_file, value)))


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _flat(one)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A step is done.

    Attributes:
        step: how many steps are done.
        num_steps: how many there are. None if the scheduler chooses its steps as it goes.
        preview: a PNG file, if it is time for a preview.
        preview_index: which preview this is, counted from 0.
    """

    step: int
    num_steps: int | None
    preview: bytes | None = None
    preview_index: int = 0


@dataclass(frozen=True, kw_only=True)
class MadeImage:
    """An image as a file.

    Attributes:
        data: the file.
        seed: the seed that makes it again on its own.
        width, height: its size in pixels.
        text: how it was made, as A1111 writes it.
        flagged: whether the safety checker flagged it. None if none looked.
    """

    data: bytes = field(repr=False)
    seed: int
    width: int
    height: int
    text: str
    flagged: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Made:
    """The result of a task.

    Attributes:
        images: the images.
        settings: the settings after the model's defaults were filled in, by name. Those that are not given are missing.
        seconds: how long it took in the worker.
        skipped_calls: how many evaluations `accelerate` made without the U-Net.
        notices: what the pipeline said.
        prompt_tokens: how many tokens the prompt and the negative prompt have. None if they were not counted.
    """

    images: tuple[MadeImage, ...]
    settings: Mapping[str, Any]
    seconds: float
    skipped_calls: int = 0
    notices: tuple[str, ...] = ()
    prompt_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a task made no images.

    Attributes:
        kind: the name of the error's class, such as "RequestError".
        message: what it says.
        argument: the setting that is wrong.
        is_request: whether the caller can mend it.
    """

    kind: str
    message: str
    argument: str | None = None
    is_request: bool = False
