"""Group image jobs into batches, and make the request of each. No model is needed for this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdrt.cli.generate.jobs import ImageJob
from sdrt.cli.generate.streams import image_or_stdin
from sdrt.common.seeds import seeds_from
from sdrt.request.loras import lora_texts
from sdrt.request.setting import settings_of

if TYPE_CHECKING:
    from sdrt.request.request import Request

__all__ = ["Batch", "batches"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images that are denoised at once."""

    name: str
    """The text beside the progress bar."""
    jobs: list[ImageJob]
    request: Request


def batches(jobs: list[ImageJob]) -> list[Batch]:
    """Group `jobs` into batches of at most the batch size.

    The images of a batch have the same settings, and their seeds count up. No model is needed for this, so a
    `RequestError` for settings that are wrong with every model is raised before one is loaded.
    """
    files = _InputFiles()
    found, start = [], 0
    while start < len(jobs):
        end = start + 1
        while end < len(jobs) and end - start < jobs[start].options.batch_size:
            first, following = jobs[start], jobs[end]
            if (
                following.options is not first.options
                or lora_texts(following.prompt) != lora_texts(first.prompt)
                or following.seed != seeds_from(first.seed, end - start + 1)[-1]
            ):
                break
            end += 1
        batch = jobs[start:end]
        name = f"images {start + 1}-{end}" if len(batch) > 1 else f"image {end}"
        with batch[0].line.named_by_errors():
            request = _request(batch, files)
        found.append(Batch(name=f"{name} of {len(jobs)}", jobs=batch, request=request))
        start = end
    return found


class _InputFiles:
    """Reads each input image and mask once. Files may change during a long run, and a pipe can be read only once."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], Any] = {}

    def image(self, path: str | None) -> Any:
        """The image in a file, or None without a path."""
        from sdrt.images.reading import read_images

        return self._read_once("image", path, read_images)

    def mask(self, path: str | None) -> Any:
        """The mask in a file, or None without a path."""
        from sdrt.images.reading import read_masks

        return self._read_once("mask_image", path, read_masks)

    def images(self, name: str, paths: Sequence[str] | None) -> Any:
        """The images in files for a setting that takes several, or None without a path."""
        from sdrt.images.reading import read_images

        return [self._read_once(name, path, read_images)[0] for path in paths or ()] or None

    def masks(self, name: str, paths: Sequence[str] | None) -> Any:
        """The masks in files for a setting that takes several, or None without a path."""
        from sdrt.images.reading import read_masks

        def read(name: str, value: Any) -> Any:
            return read_masks(name, value, white="white where the image is seen")

        return [self._read_once(name, path, read)[0] for path in paths or ()] or None

    def _read_once(self, name: str, path: str | None, read: Callable[[str, Any], Any]) -> Any:
        if path is None:
            return None
        if (name, path) not in self._read:
            self._read[name, path] = read(name, image_or_stdin(name, path))
        return self._read[name, path]


def _request(batch: list[ImageJob], files: _InputFiles) -> Request:
    from sdrt.request.request import Request

    settings = batch[0].options.settings
    return Request(
        **{row.name: settings[row.name] for row in settings_of(Request) if row.name in settings}
        | {
            "prompt": [job.prompt for job in batch],
            **{name: _text(name, batch) for name in batch[0].texts.made if name != "prompt"},
            "seed": batch[0].seed,
            "image": files.image(settings["image"]),
            "mask_image": files.mask(settings["mask_image"]),
            **{name: files.images(name, settings[name]) for name in ("control_image", "ip_adapter_image")},
            "ip_adapter_masks": files.masks("ip_adapter_masks", settings["ip_adapter_masks"]),
        }
    )


def _text(name: str, batch: list[ImageJob]) -> str | list[str] | None:
    """A text beside the prompts of a batch: one for all images, or one for each if their wildcards differ."""
    texts = [job.texts.made[name] for job in batch]
    # Those of one batch are all given, or none is.
    return [text or "" for text in texts] if len(set(texts)) > 1 else texts[0]
